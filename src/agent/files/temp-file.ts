// Temporary files beside the file they will replace.
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";
import { type BytePath, fsPath } from "./byte-path.ts";

const PREFIX = ".memoh-tmp-";
const PATTERN = /^\.memoh-tmp-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A name no other file has. */
export function tempName(): BytePath {
  return PREFIX + randomUUID();
}

/** Whether a name is one of ours, exactly. */
export function isTempName(name: BytePath): boolean {
  return PATTERN.test(name);
}

/** A file that is removed again when disposed, unless it was renamed before. */
export class TempFile implements AsyncDisposable {
  readonly path: BytePath;
  readonly handle: FileHandle;
  #there = true;
  #open = true;

  private constructor(path: BytePath, handle: FileHandle) {
    this.path = path;
    this.handle = handle;
  }

  /** Makes an empty file in the directory. @param mode less the umask, as for any new file */
  static async create(directory: BytePath, mode: number): Promise<TempFile> {
    const path = `${directory === "/" ? "" : directory}/${tempName()}`;
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    return new TempFile(path, await open(fsPath(path), flags, mode));
  }

  /** Writes all of the bytes at a position. */
  async write(data: Uint8Array, position: number): Promise<void> {
    await writeAll(this.handle, data, position);
  }

  /** It has got its final name. */
  renamed(): void {
    this.#there = false;
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    if (!this.#there) return;
    this.#there = false;
    try {
      await unlink(fsPath(this.path));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  }
}

/** Writes all of the bytes at a position: the kernel may take fewer at a time. */
export async function writeAll(handle: FileHandle, data: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < data.length) {
    const { bytesWritten } = await handle.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}
