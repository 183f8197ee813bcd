// Faults of file calls: the original's prefix (`open:`, `write:`…), the path, the reason, and what to do about it.
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { type Code, Fault } from "../../lib/fault.ts";
import { type BytePath, shown } from "./byte-path.ts";

/** What the original says it was doing when a call failed; clients match on these. */
export type Doing =
  | "open"
  | "read"
  | "readdir"
  | "stat"
  | "mkdir"
  | "mkdir parent"
  | "create"
  | "write"
  | "rename"
  | "delete"
  | "tree";

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: "Free some space in the workspace, then try again",
  EDQUOT: "Free some space in the workspace, then try again",
  EXDEV: "Copy it to the new place and delete the old one: they are on different file systems",
  ENOTEMPTY: "Ask for a recursive delete, or empty the directory first",
  ENOTDIR: "A part of the path that has to be a directory is a file: check the path",
  EISDIR: "Name a file inside the directory",
  EBUSY: "It is a mount point and cannot be removed or renamed",
};

/** A Fault for a failed system call on a path. Faults pass unchanged. */
export function fileFault(error: unknown, doing: Doing, path: BytePath): Fault {
  return faultFromErrno(error, `${doing}: ${shown(path)}`, HINTS[errnoOf(error) ?? ""]);
}

/** A Fault for something we found wrong ourselves, in the same form. */
export function pathFault(code: Code, doing: Doing, path: BytePath, reason: string, hint?: string): Fault {
  return new Fault(code, `${doing}: ${shown(path)}: ${reason}`, { hint });
}

/** Runs a system call whose failure is about this path. */
export async function during<T>(doing: Doing, path: BytePath, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileFault(error, doing, path);
  }
}
