// Writes of whole files: the new content is complete and on disk before the old one goes, and a stream that breaks
// leaves the old file.
import { type BigIntStats, constants } from "node:fs";
import { access, type FileHandle, open, rename, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { errnoOf } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { SerialQueue } from "../../lib/serial-queue.ts";
import { findXattrs } from "../../lib/xattr.ts";
import { type BytePath, bytePath, fsPath, parentOf } from "./byte-path.ts";
import { type Doing, during, fileFault } from "./file-fault.ts";
import { makeDirs } from "./make-dirs.ts";
import { mustBeRegular } from "./open-regular.ts";
import { CHUNK } from "./read-raw.ts";
import { type RealTarget, realTarget } from "./real-target.ts";
import { TempFile, writeAll } from "./temp-file.ts";
import { untilAborted } from "./until-aborted.ts";

/** How a file is written. */
export interface ReplaceOptions {
  /** Mode of a new file, less the umask. An existing file keeps its own. */
  readonly mode: number;
  /** What the original was doing when it could not open the target. */
  readonly opening: Doing;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Replaces a file's content, or makes the file and its missing parents. Links are followed. A new file, or a regular
 * one with a single name, is replaced by rename and keeps mode, owner and extended attributes; a file that has other
 * names, is a mount point or cannot be made alike is written in place once the content is complete.
 * @returns bytes written
 * @throws Fault failed_precondition, permission_denied, not_found, resource_exhausted, or what the source threw
 */
export async function replaceFile(
  path: BytePath,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: ReplaceOptions,
): Promise<number> {
  await makeDirs(parentOf(path));
  const target = await realTarget(path, options.opening);
  const { stats } = target;
  if (stats !== undefined) {
    mustBeRegular(stats, options.opening, path);
    await during(options.opening, path, async () => {
      await access(fsPath(target.path), constants.W_OK);
    });
  }
  const stage = await during(options.opening, path, async () => await stageFor(target, options.mode));
  await using temp = stage.temp;
  let size = 0;
  for await (const chunk of untilAborted(source, options.signal)) {
    await during("write", path, async () => {
      await temp.write(chunk, size);
    });
    size += chunk.length;
  }
  await during("write", path, async () => {
    if (!(stage.beside && (await moveOver(temp, target)))) await writeInPlace(temp.handle, target, size);
  });
  return size;
}

/** Where the content gathers: beside the target, or elsewhere when its directory takes no files but it can be written. */
async function stageFor(target: RealTarget, mode: number): Promise<{ temp: TempFile; beside: boolean }> {
  const { stats } = target;
  try {
    // Private until it has the mode of the file it replaces.
    return {
      temp: await TempFile.create(target.directory, stats === undefined ? mode : 0o600),
      beside: true,
    };
  } catch (error) {
    const full = ["ENOSPC", "EDQUOT", "EMFILE", "ENFILE"].includes(errnoOf(error) ?? "");
    if (stats === undefined || full) throw error;
    return { temp: await TempFile.create(bytePath(tmpdir()), 0o600), beside: false };
  }
}

/** @returns false when the target has to be written in place; nothing has changed then */
async function moveOver(temp: TempFile, target: RealTarget): Promise<boolean> {
  const { stats } = target;
  if (stats !== undefined && (stats.nlink > 1n || !(await madeAlike(temp.handle, target, stats))))
    return false;
  await temp.handle.sync();
  try {
    await rename(fsPath(temp.path), fsPath(target.path));
  } catch (error) {
    if (errnoOf(error) === "EBUSY" && stats !== undefined) return false;
    throw error;
  }
  temp.renamed();
  await syncDirectory(target.directory);
  return true;
}

/** Gives the new file mode, owner and extended attributes of the old. @returns false when that is not allowed */
async function madeAlike(handle: FileHandle, target: RealTarget, stats: BigIntStats): Promise<boolean> {
  const xattrs = await findXattrs();
  try {
    const own = await handle.stat({ bigint: true });
    if (own.uid !== stats.uid || own.gid !== stats.gid) {
      await handle.chown(Number(stats.uid), Number(stats.gid));
    }
    await handle.chmod(Number(stats.mode & 0o7777n));
    if (xattrs === undefined) return true;
    await using old = await open(fsPath(target.path), constants.O_RDONLY | constants.O_NONBLOCK);
    const wanted = await xattrs.read(old.fd);
    // A security module may have labelled the new file already.
    const has = wanted.size === 0 ? wanted : await xattrs.read(handle.fd);
    for (const [name, value] of wanted) {
      if (has.get(name)?.equals(value) !== true) await xattrs.write(handle.fd, name, value);
    }
    return true;
  } catch (error) {
    if (Fault.is(error, "failed_precondition")) return false;
    if (["EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "EROFS"].includes(errnoOf(error) ?? "")) return false;
    throw error;
  }
}

/** Writers of one file in place go one after the other, so that the last one's content stands alone. */
const inPlace = new SerialQueue();

async function writeInPlace(from: FileHandle, target: RealTarget, size: number): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
  await using to = await open(fsPath(target.path), flags);
  const stats = await to.stat({ bigint: true });
  mustBeRegular(stats, "write", target.path);
  await inPlace.run(`${stats.dev}:${stats.ino}`, async () => {
    await mustHaveRoom(target, size - Number(stats.size));
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(1, size)));
    for (let position = 0; position < size; ) {
      const { bytesRead } = await from.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) throw new Fault("internal", "the staged content became shorter");
      await writeAll(to, buffer.subarray(0, bytesRead), position);
      position += bytesRead;
    }
    if (stats.size > BigInt(size)) await to.truncate(size);
    await syncFile(to);
  });
}

/** Looked at before the first byte of the old content goes. @throws Fault resource_exhausted */
async function mustHaveRoom(target: RealTarget, growth: number): Promise<void> {
  if (growth <= 0) return;
  const { bfree, bsize, blocks } = await statfs(fsPath(target.path));
  // Kernel file systems (proc, sysfs) have no blocks and need none.
  if (blocks === 0 || bfree * bsize >= growth) return;
  throw fileFault(Object.assign(new Error("no room"), { code: "ENOSPC" }), "write", target.path);
}

async function syncDirectory(directory: BytePath): Promise<void> {
  try {
    await using handle = await open(fsPath(directory), constants.O_RDONLY | constants.O_DIRECTORY);
    await handle.sync();
  } catch (error) {
    // A directory we may write but not read, or a file system that cannot sync one.
    if (!["EACCES", "EINVAL"].includes(errnoOf(error) ?? "")) throw error;
  }
}

async function syncFile(handle: FileHandle): Promise<void> {
  try {
    await handle.sync();
  } catch (error) {
    // Kernel file systems have nothing to sync.
    if (errnoOf(error) !== "EINVAL") throw error;
  }
}
