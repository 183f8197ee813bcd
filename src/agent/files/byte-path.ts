// Paths as the kernel has them, bytes of any kind, held as strings with one character per byte (latin1).
//
// Names in a workspace need not be UTF-8. A latin1 string keeps every byte, compares in byte order, works with
// node:path and as a key of a Map, and costs far less than a Buffer; both runtimes read directories in it.
import { posix } from "node:path";
import type { WorkspacePath } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";

/** A path or name with one character per byte. Never shown to people and never mixed with text: see `shown`. */
export type BytePath = string;

/** The bytes of a path given as text (its UTF-8) or as bytes. */
export function bytePath(path: WorkspacePath): BytePath {
  return (typeof path === "string" ? Buffer.from(path, "utf8") : bufferOf(path)).toString("latin1");
}

/** What node:fs takes. */
export function fsPath(path: BytePath): Buffer {
  return Buffer.from(path, "latin1");
}

/** The path in a message: bytes that are not UTF-8 stand as U+FFFD. */
export function shown(path: BytePath): string {
  return fsPath(path).toString("utf8");
}

/**
 * The original's path rule: an absolute path is cleaned lexically and used as it is, a relative one is joined to the
 * work directory. There is no jail.
 * @throws Fault invalid_argument for a NUL byte
 */
export function resolvePath(workDir: BytePath, path: WorkspacePath): BytePath {
  const bytes = bytePath(path);
  if (bytes.includes("\0")) {
    throw new Fault("invalid_argument", "the path contains a NUL byte", {
      hint: "Send the path without the NUL byte",
    });
  }
  return posix.resolve(workDir, bytes);
}

/** As `resolvePath`, but an empty path is an error. */
export function requirePath(workDir: BytePath, path: WorkspacePath, message = "path is required"): BytePath {
  if (path.length === 0) throw new Fault("invalid_argument", message);
  return resolvePath(workDir, path);
}

/** Parent of a cleaned path. */
export function parentOf(path: BytePath): BytePath {
  return posix.dirname(path);
}

/** Last name of a cleaned path; `/` is its own name. */
export function nameOf(path: BytePath): BytePath {
  return path === "/" ? path : posix.basename(path);
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
