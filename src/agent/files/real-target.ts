// Where a write to a path really goes: the end of its chain of links, which need not exist.
import type { BigIntStats } from "node:fs";
import { readlink, realpath } from "node:fs/promises";
import { type BytePath, fsPath, nameOf, parentOf } from "./byte-path.ts";
import { type Doing, fileFault, pathFault } from "./file-fault.ts";
import { lookUp } from "./look-up.ts";

/** The file a write is for. Its directory exists and is free of links. */
export interface RealTarget {
  readonly directory: BytePath;
  readonly path: BytePath;
  /** Undefined when there is no such file yet. */
  readonly stats: BigIntStats | undefined;
}

/** The kernel's own limit. */
const MAX_LINKS = 40;

/**
 * Follows the links at the end of a path; a dangling one leads to the file it names.
 * @throws Fault not_found (a directory on the way is missing), failed_precondition (a loop), permission_denied
 */
export async function realTarget(path: BytePath, doing: Doing): Promise<RealTarget> {
  try {
    let at = path;
    for (let links = 0; links < MAX_LINKS; links++) {
      // Resolved by the kernel, never by cutting at "..": a directory on the way may be a link itself.
      const directory = await realpath(fsPath(parentOf(at)), { encoding: "latin1" });
      const target = `${directory === "/" ? "" : directory}/${nameOf(at)}`;
      const stats = await lookUp(fsPath(target));
      if (stats?.isSymbolicLink() !== true) return { directory, path: target, stats };
      const link = await readlink(fsPath(target), { encoding: "latin1" });
      at = (link.startsWith("/") ? link : `${directory}/${link}`).replace(/(?<=.)\/+$/, "");
    }
  } catch (error) {
    throw fileFault(error, doing, path);
  }
  throw pathFault("failed_precondition", doing, path, "too many levels of symbolic links");
}
