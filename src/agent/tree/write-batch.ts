// Files on their way to disk, several at a time: a sync alone takes a commit of the file system's journal, many together
// share one.
import { rename } from "node:fs/promises";
import type { TreeEntry } from "../../core/tree-hash.ts";
import { errnoOf } from "../../lib/errno.ts";
import type { BytePath } from "../files/byte-path.ts";
import { fsPath } from "../files/byte-path.ts";
import type { Directory } from "../files/directory.ts";
import { fileFault } from "../files/file-fault.ts";
import type { TempFile } from "../files/temp-file.ts";
import type { Attributes } from "./attributes.ts";

/** Open descriptors a batch may hold. */
const MAX_OPEN = 96;

interface PendingFile {
  readonly directory: Directory;
  /** Complete and synced. */
  readonly ready: Promise<TempFile>;
  readonly name: BytePath;
  /** Path in the tree, for messages. */
  readonly path: BytePath;
}

interface PendingDirectory {
  readonly directory: Directory;
  /** What it says about itself, unless it keeps what it has. */
  readonly entry: TreeEntry | undefined;
}

/** Gathers files and left directories, and brings them to disk in their final form. */
export class WriteBatch implements AsyncDisposable {
  readonly #attributes: Attributes;
  readonly #files = new Map<BytePath, PendingFile>();
  #directories: PendingDirectory[] = [];

  constructor(attributes: Attributes) {
    this.#attributes = attributes;
  }

  /** Whether this path in the tree is written and not yet in its place. */
  has(path: BytePath): boolean {
    return this.#files.has(path);
  }

  /**
   * A file that is being completed and synced. Takes over the temporary file.
   * @param path in the tree
   */
  async addFile(
    directory: Directory,
    name: BytePath,
    path: BytePath,
    ready: Promise<TempFile>,
  ): Promise<void> {
    // Its failure is thrown when the batch is flushed.
    ready.catch(() => undefined);
    this.#files.set(path, { directory: directory.retain(), ready, name, path });
    await this.#flushWhenLarge();
  }

  /** A directory that nothing more is written to. */
  async addDirectory(directory: Directory, entry: TreeEntry | undefined): Promise<void> {
    this.#directories.push({ directory: directory.retain(), entry });
    await this.#flushWhenLarge();
  }

  /** Places the files, then gives the directories their attributes: times last, since names change them. */
  async flush(): Promise<void> {
    for (const { directory, ready, name, path } of this.#files.values()) {
      const temp = await about(path, ready);
      await about(path, rename(fsPath(temp.path), directory.in(name)));
      temp.renamed();
      this.#files.delete(path);
      await temp.close();
      await directory.release();
    }
    const directories = this.#directories;
    for (const { directory, entry } of directories) {
      if (entry !== undefined) await about(entry.path, this.#attributes.restore(directory.handle, entry));
    }
    await Promise.all(directories.map(async ({ directory }) => await syncDirectory(directory)));
    this.#directories = [];
    for (const { directory } of directories) await directory.release();
  }

  /** Drops what is not in its place. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { directory, ready } of this.#files.values()) {
      const temp = await ready.catch(() => undefined);
      await temp?.[Symbol.asyncDispose]();
      await directory.release();
    }
    this.#files.clear();
    for (const { directory } of this.#directories.splice(0)) await directory.release();
  }

  async #flushWhenLarge(): Promise<void> {
    // A file holds its own descriptor and, at worst, that of its directory.
    if (this.#files.size * 2 + this.#directories.length >= MAX_OPEN) await this.flush();
  }
}

async function about<T>(path: BytePath, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw fileFault(error, "tree", path);
  }
}

async function syncDirectory(directory: Directory): Promise<void> {
  try {
    await directory.handle.sync();
  } catch (error) {
    // Some file systems cannot sync a directory and need not.
    if (errnoOf(error) !== "EINVAL") throw error;
  }
}
