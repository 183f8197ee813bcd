// Writes content into a fresh file and seeks over runs of zeros, so that holes stay holes.
import type { FileHandle } from "node:fs/promises";
import { writeAll } from "../files/temp-file.ts";

/** Holes are made of whole blocks of most file systems. */
const BLOCK = 4096;
const ZEROS = Buffer.alloc(BLOCK);

/** Bytes of a new, empty file, from its beginning. */
export class SparseWriter {
  readonly #handle: FileHandle;
  #position = 0;
  /** End of what has been written: bytes behind it are zeros that are not there yet. */
  #end = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(data: Uint8Array): Promise<void> {
    const chunk = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    let from = 0;
    for (let at = 0; at < chunk.length; ) {
      const next = Math.min(chunk.length, at + BLOCK - ((this.#position + at) % BLOCK));
      if (isZero(chunk, at, next)) {
        await this.#put(chunk, from, at);
        from = next;
      }
      at = next;
    }
    await this.#put(chunk, from, chunk.length);
    this.#position += chunk.length;
  }

  /** Gives the file its size. */
  async finish(): Promise<void> {
    if (this.#end < this.#position) await this.#handle.truncate(this.#position);
  }

  async #put(chunk: Buffer, from: number, to: number): Promise<void> {
    if (from === to) return;
    await writeAll(this.#handle, chunk.subarray(from, to), this.#position + from);
    this.#end = this.#position + to;
  }
}

function isZero(chunk: Buffer, from: number, to: number): boolean {
  return chunk[from] === 0 && chunk.compare(ZEROS, 0, to - from, from, to) === 0;
}
