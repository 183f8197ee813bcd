// Where a tree is written: entries go below one open directory, name by name and never through a link.
import type { BigIntStats } from "node:fs";
import { link, mkdir, rename, symlink, unlink } from "node:fs/promises";
import type { TreeEntry } from "../../core/tree-hash.ts";
import { errnoOf } from "../../lib/errno.ts";
import { type BytePath, bytePath, fsPath, shown } from "../files/byte-path.ts";
import { type Directory, DirectoryStack } from "../files/directory.ts";
import { fileFault, pathFault } from "../files/file-fault.ts";
import { lookUp } from "../files/look-up.ts";
import { TempFile, tempName } from "../files/temp-file.ts";
import type { Attributes } from "./attributes.ts";
import type { Conflicts } from "./conflicts.ts";
import { namesOf } from "./entry-path.ts";
import type { Skips } from "./skips.ts";
import { SparseWriter } from "./sparse-writer.ts";
import { WriteBatch } from "./write-batch.ts";

/** Content of files up to this size is written while the next entries arrive. */
const SMALL = 64 << 10;

/** A place for an entry: an open directory, a name in it, and what has the name now. */
interface Place {
  readonly directory: Directory;
  readonly name: BytePath;
  readonly existing: BigIntStats | undefined;
  /** Where it really goes: names from the root. */
  readonly actual: readonly BytePath[];
}

/** Writes entries below a directory. */
export class TreeTarget implements AsyncDisposable {
  readonly #root: Directory;
  readonly #stack: DirectoryStack;
  readonly #conflicts: Conflicts;
  readonly #attributes: Attributes;
  readonly #skips: Skips;
  readonly #batch: WriteBatch;
  /** Names of the current directory, and what the tree says about each directory down to it. */
  readonly #at: BytePath[] = [];
  readonly #entries: (TreeEntry | undefined)[] = [undefined];
  /** Whether the root was made for this tree. */
  readonly #fresh: boolean;

  /** Takes over the open root. */
  constructor(
    root: Directory,
    fresh: boolean,
    how: { readonly conflicts: Conflicts; readonly attributes: Attributes; readonly skips: Skips },
  ) {
    this.#root = root;
    this.#fresh = fresh;
    this.#conflicts = how.conflicts;
    this.#attributes = how.attributes;
    this.#skips = how.skips;
    this.#stack = new DirectoryStack(root.retain());
    this.#batch = new WriteBatch(how.attributes);
  }

  /**
   * Writes a checked entry; all of the content of a file is taken, whether it is written or not.
   * @throws Fault already_exists, failed_precondition, and errno errors about the entry
   */
  async write(entry: TreeEntry, content: AsyncIterable<Uint8Array>): Promise<void> {
    const parts = namesOf(entry.path);
    switch (entry.type) {
      case "directory":
        await this.#directory(entry, parts);
        break;
      case "file":
        await this.#file(entry, parts, content);
        break;
      case "symlink":
        await this.#symlink(entry, parts);
        break;
      case "link":
        await this.#link(entry, parts);
        break;
    }
  }

  /** Puts everything in its place, on disk. */
  async finish(): Promise<void> {
    await this.#goTo([]);
    await this.#batch.addDirectory(this.#stack.current, this.#entries[0]);
    await this.#batch.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#batch[Symbol.asyncDispose]();
    await this.#stack[Symbol.asyncDispose]();
    await this.#root.release();
  }

  async #directory(entry: TreeEntry, parts: readonly BytePath[]): Promise<void> {
    if (parts.length === 0) {
      if (this.#fresh || this.#conflicts.replaces) this.#entries[0] = entry;
      return;
    }
    let place = await this.#place(parts, (existing) => existing.isDirectory());
    if (place === undefined) return;
    const isNew = place.existing?.isDirectory() !== true;
    if (isNew) {
      if (place.existing !== undefined) await unlink(place.directory.in(place.name));
      // What it says about itself comes when all is in it; until then it is ours alone.
      await mkdir(place.directory.in(place.name), 0o700);
      place = { ...place, existing: undefined };
    }
    await this.#goTo(place.actual);
    if (isNew || this.#conflicts.replaces) this.#entries[this.#entries.length - 1] = entry;
  }

  async #file(
    entry: TreeEntry,
    parts: readonly BytePath[],
    content: AsyncIterable<Uint8Array>,
  ): Promise<void> {
    const place = await this.#place(parts);
    if (place === undefined) {
      for await (const unread of content) void unread;
      return;
    }
    const { directory, name, actual } = place;
    // A small one is completed while the next entries arrive.
    const written =
      entry.size <= SMALL
        ? this.#written(directory, entry, [await gathered(content)])
        : Promise.resolve(await this.#written(directory, entry, content));
    const ready = written.then(async (temp) => await this.#completed(temp, entry));
    await this.#batch.addFile(directory, name, actual.join("/"), ready);
  }

  async #written(
    directory: Directory,
    entry: TreeEntry,
    content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<TempFile> {
    return await directory.use(async () => {
      const temp = await TempFile.create(bytePath(directory.in(".")), 0o600);
      try {
        const writer = new SparseWriter(temp.handle);
        for await (const chunk of content) await writer.write(chunk);
        await writer.finish();
        return temp;
      } catch (error) {
        await temp[Symbol.asyncDispose]();
        throw fileFault(error, "tree", entry.path);
      }
    });
  }

  async #completed(temp: TempFile, entry: TreeEntry): Promise<TempFile> {
    try {
      await this.#attributes.restore(temp.handle, entry);
      await temp.handle.sync();
      return temp;
    } catch (error) {
      await temp[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #symlink(entry: TreeEntry, parts: readonly BytePath[]): Promise<void> {
    const place = await this.#place(parts);
    if (place === undefined) return;
    await this.#put(place, async (path) => {
      await symlink(fsPath(entry.link), path);
      await this.#attributes.restoreLink(path, entry);
    });
  }

  async #link(entry: TreeEntry, parts: readonly BytePath[]): Promise<void> {
    const place = await this.#place(parts);
    if (place === undefined) return;
    const first = this.#conflicts.resolve(namesOf(entry.link));
    if (first === undefined) {
      // What has the first name here is another file, and the content did not come twice.
      this.#skips.add(entry.path, "is another name of a file that was kept as it is here", true);
      return;
    }
    // The first name may still be waiting for its place.
    if (this.#batch.has(first.join("/"))) await this.#batch.flush();
    await using source = await this.#reach(first.slice(0, -1), entry);
    const name = first.at(-1) ?? ".";
    const stats = await lookUp(source.in(name));
    if (stats?.isFile() !== true) throw notInTree(entry);
    const { existing } = place;
    if (existing !== undefined && existing.dev === stats.dev && existing.ino === stats.ino) return;
    await this.#put(place, async (path) => {
      await link(source.in(name), path);
    });
  }

  /** Makes something that has no content, over what may be there. */
  async #put(place: Place, make: (path: Buffer) => Promise<void>): Promise<void> {
    const path = place.directory.in(place.name);
    if (place.existing === undefined) {
      await make(path);
      return;
    }
    const temp = place.directory.in(tempName());
    await make(temp);
    try {
      await rename(temp, path);
    } catch (error) {
      await unlink(temp);
      throw error;
    }
  }

  /**
   * Goes to the directory of an entry and settles its name.
   * @param fits whether what exists and the entry can be one, without a conflict
   * @returns undefined when it is not to be written
   */
  async #place(
    parts: readonly BytePath[],
    fits: (existing: BigIntStats) => boolean = () => false,
  ): Promise<Place | undefined> {
    if (parts.length === 0) throw pathFault("invalid_argument", "tree", ".", "the root must be a directory");
    const actual = this.#conflicts.resolve(parts);
    if (actual === undefined) return undefined;
    await this.#goTo(actual.slice(0, -1));
    const directory = this.#stack.current;
    const name = actual.at(-1) ?? "";
    if (this.#batch.has(actual.join("/"))) await this.#batch.flush();
    const existing = await lookUp(directory.in(name));
    if (existing === undefined || fits(existing)) return { directory, name, existing, actual };
    // A free name is only free when nothing is waiting for it.
    await this.#batch.flush();
    const settled = await this.#conflicts.settle(directory, parts, actual, existing);
    if (settled === undefined) return undefined;
    if (settled === name) return { directory, name, existing, actual };
    return { directory, name: settled, existing: undefined, actual: [...actual.slice(0, -1), settled] };
  }

  /** Makes this the current directory: up to where the ways part, then down, making what is missing. */
  async #goTo(parts: readonly BytePath[]): Promise<void> {
    let common = 0;
    while (common < parts.length && this.#at[common] === parts[common]) common++;
    while (this.#at.length > common) {
      await this.#batch.addDirectory(this.#stack.current, this.#entries.pop());
      this.#at.pop();
      await this.#stack.pop();
    }
    for (const part of parts.slice(common)) {
      await this.#enter(part);
      this.#at.push(part);
      this.#entries.push(undefined);
    }
  }

  async #enter(name: BytePath): Promise<void> {
    try {
      await this.#stack.push(name);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOTDIR" || errno === "ELOOP") {
        const path = [...this.#at, name].join("/");
        throw pathFault("failed_precondition", "tree", path, "is in the way: it is not a directory");
      }
      if (errno !== "ENOENT") throw error;
      // A tar need not have an entry for every directory.
      await mkdir(this.#stack.current.in(name), 0o755);
      await this.#stack.push(name);
    }
  }

  /** Opens a directory of the tree beside the current one. */
  async #reach(parts: readonly BytePath[], entry: TreeEntry): Promise<Directory> {
    let directory = this.#root.retain();
    for (const part of parts) {
      try {
        const next = await directory.enter(part);
        await directory.release();
        directory = next;
      } catch (error) {
        await directory.release();
        if (["ENOENT", "ENOTDIR", "ELOOP"].includes(errnoOf(error) ?? "")) throw notInTree(entry);
        throw error;
      }
    }
    return directory;
  }
}

function notInTree(entry: TreeEntry): Error {
  const reason = `is a hard link to ${shown(entry.link)}, which is no file of the tree`;
  return pathFault("failed_precondition", "tree", entry.path, reason);
}

async function gathered(content: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of content) chunks.push(chunk);
  return Buffer.concat(chunks);
}
