// A file tree as a pax tar: what is there when each entry is met, in byte order, parents first, in bounded memory.
//
// The root of a tree is the entry "."; a single file is one entry with its base name. Links are carried as links and
// never followed (but for the root itself). The second name of a file is a hard link to its first.
import { createHash } from "node:crypto";
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, lstat, open, readlink } from "node:fs/promises";
import { type TreeEntry, TreeHash } from "../../core/tree-hash.ts";
import type { TreeSummary } from "../../core/workspace.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import type { XattrMap, Xattrs } from "../../lib/xattr.ts";
import { type BytePath, nameOf } from "../files/byte-path.ts";
import { Directory } from "../files/directory.ts";
import { kindOf, openRegular } from "../files/open-regular.ts";
import { CHUNK } from "../files/read-raw.ts";
import { isTempName } from "../files/temp-file.ts";
import { type EntryStep, type WalkStep, walk } from "../files/walk.ts";
import { ahead } from "./ahead.ts";
import { entryOf, NO_XATTRS } from "./entry-of.ts";
import { isPseudo } from "./pseudo-file-system.ts";
import { Skips } from "./skips.ts";
import { encodeEntry } from "./tar-entry.ts";
import { BLOCK, padding } from "./tar-format.ts";

/** Entries looked at and opened before their turn. */
const WIDTH = 16;
/** Content of files up to this size is read before their turn, too. */
const SMALL = 64 << 10;
const END = Buffer.alloc(2 * BLOCK);
/** Failures that are about one entry; others (no descriptors, no memory) end the tree. */
const ENTRY_ERRORS = new Set(["EACCES", "EPERM", "ELOOP", "ENOTDIR", "ENXIO", "EINVAL", "EIO", "ESTALE"]);
/** What it looks like when something else took the name in between. */
const CHANGED = new Set(["EINVAL", "ELOOP", "ENXIO"]);

/** An entry that is ready for its turn. */
interface Ready {
  readonly entry: TreeEntry;
  readonly stats: BigIntStats;
  /** Of files: open until the entry's turn is over. */
  readonly handle?: FileHandle;
  /** All of the content when it is small. */
  readonly content?: Buffer;
}

/** Reads one tree, once. */
export class TreeSource {
  readonly #path: BytePath;
  readonly #xattrs: Xattrs | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #hash = new TreeHash();
  readonly #skips = new Skips();
  /** First names of files whose other names have not all been met. */
  readonly #names = new Map<string, { readonly path: BytePath; left: bigint }>();

  constructor(path: BytePath, xattrs: Xattrs | undefined, signal: AbortSignal | undefined) {
    this.#path = path;
    this.#xattrs = xattrs;
    this.#signal = signal;
  }

  /** The tar of a directory, in pieces of any size. */
  async *directory(): AsyncGenerator<Uint8Array> {
    await using root = await Directory.open(this.#path);
    const stats = await root.handle.stat({ bigint: true });
    const xattrs = await this.#xattrsOf(root.handle);
    yield* this.#turn({ entry: entryOf("directory", ".", stats, { xattrs }), stats });
    const steps = walk(root.retain(), {
      signal: this.#signal,
      enter: async (step) => await this.#enters(step, stats.dev),
    });
    const ready = ahead(steps, WIDTH, async (step) => await this.#prepare(step), discard);
    for await (const next of ready) if (next !== undefined) yield* this.#turn(next);
    yield END;
  }

  /** The tar of a single file. */
  async *file(): AsyncGenerator<Uint8Array> {
    const { handle, stats } = await openRegular(this.#path);
    yield* this.#turn(await this.#readyFile(nameOf(this.#path), handle, stats));
    yield END;
  }

  /** After the last piece. */
  summary(): TreeSummary {
    return {
      entries: this.#hash.entries,
      bytes: this.#hash.bytes,
      sha256: this.#hash.digest(),
      skipped: this.#skips.list,
      xattrsUnsupported: this.#xattrs === undefined,
    };
  }

  /** Not into proc, sysfs and their like. */
  async #enters(step: EntryStep, rootDevice: bigint): Promise<boolean> {
    try {
      if ((await step.stats()).dev === rootDevice || !(await isPseudo(step.directory.in(step.name))))
        return true;
    } catch (error) {
      // It went or cannot be looked at: going in will tell.
      if (errnoOf(error) !== undefined) return true;
      throw error;
    }
    this.#skips.add(step.path, "its content is a view into the kernel", false);
    return false;
  }

  async #prepare(step: WalkStep): Promise<Ready | undefined> {
    if (step.kind === "leave") return undefined;
    if (step.kind === "unreadable") return this.#skipped(step.path, step.error);
    if (step.dirent.isFile() && isTempName(step.name)) return undefined;
    return await step.directory.use(async (directory) => {
      let stats = step.stats();
      for (let attempt = 1; ; attempt++) {
        try {
          return await this.#look(step, directory, await stats);
        } catch (error) {
          if (attempt === 3 || !CHANGED.has(errnoOf(error) ?? "")) return this.#skipped(step.path, error);
          stats = lstat(directory.in(step.name), { bigint: true });
        }
      }
    });
  }

  async #look(step: EntryStep, directory: Directory, stats: BigIntStats): Promise<Ready | undefined> {
    const { name, path } = step;
    if (stats.isDirectory() !== step.dirent.isDirectory()) {
      this.#skips.add(path, "was replaced while it was read", true);
      return undefined;
    }
    if (stats.isSymbolicLink()) {
      const link = await readlink(directory.in(name), { encoding: "latin1" });
      return { entry: entryOf("symlink", path, stats, { link }), stats };
    }
    if (stats.isDirectory()) {
      const xattrs = await this.#directoryXattrs(directory, name);
      return { entry: entryOf("directory", path, stats, { xattrs }), stats };
    }
    if (!stats.isFile()) {
      this.#skips.add(path, `is a ${kindOf(stats)}`, false);
      return undefined;
    }
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
    const handle = await open(directory.in(name), flags);
    const now = await handle.stat({ bigint: true });
    if (now.isFile()) return await this.#readyFile(path, handle, now);
    await handle.close();
    this.#skips.add(path, `is a ${kindOf(now)}`, false);
    return undefined;
  }

  /** Takes over the handle. */
  async #readyFile(path: BytePath, handle: FileHandle, stats: BigIntStats): Promise<Ready> {
    try {
      const size = Number(stats.size);
      const xattrs = await this.#xattrsOf(handle);
      const entry = entryOf("file", path, stats, { xattrs, size });
      // Size and bytes come from the descriptor: what the directory says may be another file's by now.
      if (size > SMALL || size === 0) return { entry, stats, handle };
      const content = Buffer.alloc(size);
      const filled = await fill(handle, content, 0);
      if (filled < size) this.#becameShorter(path);
      return { entry, stats, handle, content };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async *#turn(ready: Ready): AsyncGenerator<Uint8Array> {
    throwIfAborted(this.#signal);
    const { entry, stats, handle, content } = ready;
    try {
      const first =
        entry.type === "file" && stats.nlink > 1n ? this.#otherName(entry.path, stats) : undefined;
      if (first !== undefined) {
        const link: TreeEntry = { ...entry, type: "link", link: first, size: 0, xattrs: NO_XATTRS };
        yield encodeEntry(link);
        this.#hash.add(link);
        return;
      }
      yield encodeEntry(entry);
      if (handle === undefined) {
        this.#hash.add(entry);
        return;
      }
      const sha256 = createHash("sha256");
      for await (const chunk of content === undefined ? this.#content(entry, handle) : [content]) {
        sha256.update(chunk);
        yield chunk;
      }
      yield END.subarray(0, padding(entry.size));
      this.#hash.add(entry, sha256.digest());
    } finally {
      await handle?.close();
    }
  }

  /** Exactly as many bytes as the header says, read one chunk ahead; zeros for what is not there any more. */
  async *#content(entry: TreeEntry, handle: FileHandle): AsyncGenerator<Uint8Array> {
    let lost = false;
    const read = async (position: number): Promise<Buffer> => {
      const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK, entry.size - position));
      let filled = 0;
      try {
        if (!lost) filled = await fill(handle, buffer, position);
        if (filled < buffer.length && !lost) this.#becameShorter(entry.path);
      } catch (error) {
        this.#skipped(entry.path, error);
      }
      lost ||= filled < buffer.length;
      buffer.fill(0, filled);
      return buffer;
    };
    let next = read(0);
    for (let position = 0; position < entry.size; ) {
      const chunk = await next;
      throwIfAborted(this.#signal);
      position += chunk.length;
      if (position < entry.size) {
        next = read(position);
        next.catch(() => undefined);
      }
      try {
        yield chunk;
      } finally {
        // The file is closed next when the loop is left, and must not be under a read.
        await next.catch(() => undefined);
      }
    }
  }

  /** @returns the first name of a file met before */
  #otherName(path: BytePath, stats: BigIntStats): BytePath | undefined {
    const key = `${stats.dev}:${stats.ino}`;
    const known = this.#names.get(key);
    if (known === undefined) {
      this.#names.set(key, { path, left: stats.nlink - 1n });
      return undefined;
    }
    known.left--;
    if (known.left === 0n) this.#names.delete(key);
    return known.path;
  }

  /** Tells of an entry that could not be read, unless it has gone: then it is no part of the tree. */
  #skipped(path: BytePath, error: unknown): undefined {
    const errno = errnoOf(error) ?? "";
    if (errno === "ENOENT") return undefined;
    if (!ENTRY_ERRORS.has(errno)) throw error;
    this.#skips.add(path, faultFromErrno(error, "cannot be read").message, true);
    return undefined;
  }

  #becameShorter(path: BytePath): void {
    this.#skips.add(path, "became shorter while it was read; zeros stand for what is missing", true);
  }

  async #directoryXattrs(parent: Directory, name: BytePath): Promise<XattrMap> {
    if (this.#xattrs === undefined) return NO_XATTRS;
    try {
      await using directory = await parent.enter(name);
      return await this.#xattrsOf(directory.handle);
    } catch (error) {
      // One that cannot be read is told when it is gone into.
      if (errnoOf(error) !== undefined) return NO_XATTRS;
      throw error;
    }
  }

  async #xattrsOf(handle: FileHandle): Promise<XattrMap> {
    return (await this.#xattrs?.read(handle.fd)) ?? NO_XATTRS;
  }
}

/** Reads until the buffer is full or the file ends. @returns bytes read */
async function fill(handle: FileHandle, buffer: Buffer, position: number): Promise<number> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

async function discard(ready: Ready | undefined): Promise<void> {
  await ready?.handle?.close();
}
