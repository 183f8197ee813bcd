// An open directory and the way down from it, one name at a time and never through a link.
import { constants, type Dirent } from "node:fs";
import { type FileHandle, open, readdir } from "node:fs/promises";
import { Fault } from "../../lib/fault.ts";
import { type BytePath, fsPath } from "./byte-path.ts";

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;

/**
 * A directory held open. Names in it are reached by `/proc/self/fd/N/name`, which is openat: nobody can put a link or
 * another directory in the way, and depth does not count against PATH_MAX. Closed when the last user is done.
 */
export class Directory implements AsyncDisposable {
  readonly #handle: FileHandle;
  readonly #at: BytePath;
  #users = 1;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
    this.#at = `/proc/self/fd/${handle.fd}`;
  }

  /** Opens a path, following links. */
  static async open(path: BytePath): Promise<Directory> {
    return new Directory(await open(fsPath(path), DIRECTORY));
  }

  /** Opens a directory in this one. @throws ENOTDIR or ELOOP for a link */
  async enter(name: BytePath): Promise<Directory> {
    return new Directory(await open(this.in(name), DIRECTORY | constants.O_NOFOLLOW));
  }

  /** Opens the directory this one is in now. */
  async up(): Promise<Directory> {
    return new Directory(await open(this.in(".."), DIRECTORY));
  }

  get handle(): FileHandle {
    return this.#handle;
  }

  /** The path of a name in it, for node:fs. Valid while the directory is open. */
  in(name: BytePath): Buffer {
    this.#mustBeOpen();
    return fsPath(`${this.#at}/${name}`);
  }

  /** Its entries in byte order of their names, which have one character per byte. */
  async entries(): Promise<Dirent[]> {
    const entries = await readdir(this.in("."), { withFileTypes: true, encoding: "latin1" });
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Which directory it is, whatever its name. */
  async identity(): Promise<string> {
    const { dev, ino } = await this.#handle.stat({ bigint: true });
    return `${dev}:${ino}`;
  }

  /** Another user, who will `release` it. */
  retain(): this {
    this.#mustBeOpen();
    this.#users++;
    return this;
  }

  /** Keeps it open while the work runs. */
  async use<T>(work: (directory: this) => Promise<T>): Promise<T> {
    this.retain();
    try {
      return await work(this);
    } finally {
      await this.release();
    }
  }

  async release(): Promise<void> {
    this.#users--;
    if (this.#users === 0) await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** The number of a closed descriptor may be another file's by now. */
  #mustBeOpen(): void {
    if (this.#users === 0) throw new Fault("internal", "the directory is closed");
  }
}

/** Directories kept open on the way down; those above are closed and found again by `..`. */
const KEPT_OPEN = 64;

interface Level {
  directory: Directory | undefined;
  identity: string | undefined;
}

/** The directories from a root down to a current one, of any depth. */
export class DirectoryStack implements AsyncDisposable {
  readonly #levels: Level[];

  constructor(root: Directory) {
    this.#levels = [{ directory: root, identity: undefined }];
  }

  /** How far the current directory is below the root. */
  get depth(): number {
    return this.#levels.length - 1;
  }

  get current(): Directory {
    const directory = this.#levels.at(-1)?.directory;
    if (directory === undefined) throw new Fault("internal", "no directory is open");
    return directory;
  }

  /** Goes down into a directory of the current one. */
  async push(name: BytePath): Promise<Directory> {
    const directory = await this.current.enter(name);
    this.#levels.push({ directory, identity: undefined });
    const far = this.#levels.at(-1 - KEPT_OPEN);
    if (far?.directory !== undefined) {
      far.identity = await far.directory.identity();
      await far.directory.release();
      far.directory = undefined;
    }
    return directory;
  }

  /** Goes back up. @throws Fault aborted when the directory was moved away meanwhile and its parent is closed */
  async pop(): Promise<void> {
    const left = this.#levels.pop()?.directory;
    const level = this.#levels.at(-1);
    try {
      if (left === undefined || level === undefined || level.directory !== undefined) return;
      const directory = await left.up();
      if ((await directory.identity()) !== level.identity) {
        await directory.release();
        throw new Fault("aborted", "a directory was moved while its tree was in use", { hint: "Try again" });
      }
      level.directory = directory;
    } finally {
      await left?.release();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const level of this.#levels.splice(0)) await level.directory?.release();
  }
}
