// Opens a file for reading and never hangs: anything but a regular file is an error at once.
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { type BytePath, fsPath } from "./byte-path.ts";
import { type Doing, during, pathFault } from "./file-fault.ts";

/** An open regular file and what fstat said about it. */
export interface OpenFile {
  readonly handle: FileHandle;
  readonly stats: BigIntStats;
}

/**
 * Opens a regular file. It is looked at before it is opened, because opening a FIFO lets its writer go on and opening
 * a device can move it; and again afterwards, because it may have been replaced in between (O_NONBLOCK covers that).
 * @throws Fault not_found, permission_denied, failed_precondition
 */
export async function openRegular(path: BytePath): Promise<OpenFile> {
  return await during("open", path, async () => {
    mustBeRegular(await stat(fsPath(path), { bigint: true }), "open", path);
    const handle = await open(fsPath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat({ bigint: true });
      mustBeRegular(stats, "open", path);
      return { handle, stats };
    } catch (error) {
      await handle.close();
      throw error;
    }
  });
}

/** @throws Fault failed_precondition that says what the path is instead */
export function mustBeRegular(stats: BigIntStats, doing: Doing, path: BytePath): void {
  if (stats.isFile()) return;
  const hint = stats.isDirectory()
    ? "Name a file inside the directory"
    : "Use a command inside the workspace to talk to it";
  throw pathFault("failed_precondition", doing, path, `is a ${kindOf(stats)}`, hint);
}

/** The kind of a file, for people. */
export function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return "directory";
  if (stats.isSymbolicLink()) return "symbolic link";
  if (stats.isFIFO()) return "FIFO";
  if (stats.isSocket()) return "socket";
  if (stats.isCharacterDevice() || stats.isBlockDevice()) return "device";
  return "file";
}
