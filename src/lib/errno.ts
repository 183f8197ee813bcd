// Foreign world: errno of the operating system, turned into Faults.
import { type Code, Fault } from "./fault.ts";

/** errno names with the code a caller should see. The rest is `internal`. */
const ERRNO_CODES: Readonly<Record<string, Code>> = {
  ENOENT: "not_found",
  ENXIO: "failed_precondition",
  EEXIST: "already_exists",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  EROFS: "permission_denied",
  ENOTDIR: "failed_precondition",
  EISDIR: "failed_precondition",
  ENOTEMPTY: "failed_precondition",
  EBUSY: "failed_precondition",
  EXDEV: "failed_precondition",
  ELOOP: "failed_precondition",
  EMLINK: "failed_precondition",
  ETXTBSY: "failed_precondition",
  EINVAL: "invalid_argument",
  ENAMETOOLONG: "invalid_argument",
  ERR_INVALID_ARG_VALUE: "invalid_argument",
  ENOSPC: "resource_exhausted",
  EDQUOT: "resource_exhausted",
  EMFILE: "resource_exhausted",
  ENFILE: "resource_exhausted",
  EAGAIN: "resource_exhausted",
  ENOMEM: "resource_exhausted",
  EFBIG: "resource_exhausted",
  EADDRINUSE: "already_exists",
  ECONNREFUSED: "unavailable",
  ECONNRESET: "unavailable",
  EPIPE: "unavailable",
  EHOSTUNREACH: "unavailable",
  ENETUNREACH: "unavailable",
  ETIMEDOUT: "deadline_exceeded",
  EIO: "data_loss",
};

/** The errno name of a thrown value (ENOENT…), or undefined when it is not a system error. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}

/**
 * A Fault for a failed system call: `<doing>: <reason>`. Faults pass unchanged.
 * @param doing what was attempted, as a noun phrase or imperative ("open /data/x")
 */
export function faultFromErrno(error: unknown, doing: string, hint?: string): Fault {
  if (error instanceof Fault) return error;
  const errno = errnoOf(error);
  const code = errno === undefined ? undefined : ERRNO_CODES[errno];
  if (errno === undefined || code === undefined) return Fault.from(error, doing);
  return new Fault(code, `${doing}: ${REASONS[errno] ?? errno}`, { cause: error, hint });
}

/** strerror in the words of libc, so that people can search for them. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  ENXIO: "no such device or address",
  EEXIST: "file exists",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  ENOTEMPTY: "directory not empty",
  EBUSY: "device or resource busy",
  EXDEV: "invalid cross-device link",
  ELOOP: "too many levels of symbolic links",
  EINVAL: "invalid argument",
  ENAMETOOLONG: "file name too long",
  ENOSPC: "no space left on device",
  EDQUOT: "disk quota exceeded",
  EMFILE: "too many open files",
  ENFILE: "too many open files in system",
  EADDRINUSE: "address already in use",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  ETXTBSY: "text file busy",
  EIO: "input/output error",
};
