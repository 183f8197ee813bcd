// Reads a tar as it arrives: entries in order, each with its content, in bounded memory and trusting nothing.
import type { TreeEntry } from "../../core/tree-hash.ts";
import { Fault } from "../../lib/fault.ts";
import { contentSize, decodeEntry } from "./tar-entry.ts";
import { BLOCK, decodeHeader, decodePax, notTar, padding, type TarHeader } from "./tar-format.ts";

/** An entry and its content, which is skipped unless it is taken before the next entry is asked for. */
export interface TarItem {
  readonly entry: TreeEntry;
  /** Bytes of a file; nothing for all else. */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Bytes of the pax records or the long name before one entry. */
const MAX_EXTENSION = 4 << 20;

/**
 * Reads pax, ustar and GNU tars. Ends at the tar's end mark and takes what follows it to the end of the data.
 * @throws Fault invalid_argument when it is no tar, data_loss when it is cut off
 */
export async function* readTar(data: AsyncIterable<Uint8Array>): AsyncGenerator<TarItem> {
  await using source = new ByteSource(data);
  const global = new Map<string, string>();
  let local = new Map<string, string>();
  for (;;) {
    const header = decodeHeader(await source.exactly(BLOCK));
    if (header === undefined) break;
    if (header.type === "x" || header.type === "g") {
      const records = decodePax(await extension(source, header));
      for (const [key, value] of records) (header.type === "g" ? global : local).set(key, value);
      continue;
    }
    if (header.type === "L" || header.type === "K") {
      const name = (await extension(source, header)).toString("latin1").replace(/\0.*$/s, "");
      local.set(header.type === "L" ? "path" : "linkpath", name);
      continue;
    }
    const pax = new Map([...global, ...local]);
    local = new Map();
    const entry = decodeEntry(header, pax);
    const size = contentSize(header, pax);
    const content = source.content(size);
    yield { entry, content };
    for await (const unread of content) void unread;
    await source.exactly(padding(size));
  }
  await source.drain();
}

async function extension(source: ByteSource, header: TarHeader): Promise<Buffer> {
  const { size } = header;
  if (!(size >= 0 && size <= MAX_EXTENSION)) throw notTar("an extended header is too large");
  const bytes = await source.exactly(size);
  await source.exactly(padding(size));
  return bytes;
}

/** Bytes of a stream, taken in the portions that are asked for. */
class ByteSource implements AsyncDisposable {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Buffer = Buffer.alloc(0);
  #ended = false;

  constructor(data: AsyncIterable<Uint8Array>) {
    this.#chunks = data[Symbol.asyncIterator]();
  }

  /** So many bytes. @throws Fault data_loss when the stream ends before */
  async exactly(size: number): Promise<Buffer> {
    const first = await this.#upTo(size);
    if (first.length === size) return first;
    const parts = [first];
    for (let have = first.length; have < size; ) {
      const part = await this.#upTo(size - have);
      parts.push(part);
      have += part.length;
    }
    return Buffer.concat(parts);
  }

  /** The next so many bytes as they come. Iterating again goes on where it was left. */
  content(size: number): AsyncIterable<Uint8Array> {
    let left = size;
    const next = async (): Promise<IteratorResult<Uint8Array>> => {
      if (left === 0) return { done: true, value: undefined };
      const value = await this.#upTo(left);
      left -= value.length;
      return { done: false, value };
    };
    return { [Symbol.asyncIterator]: () => ({ next }) };
  }

  /** Takes all that is left. */
  async drain(): Promise<void> {
    while (!this.#ended) await this.#fill();
  }

  /** At least one byte and at most so many; none when none are asked for. */
  async #upTo(size: number): Promise<Buffer> {
    if (size === 0) return Buffer.alloc(0);
    while (this.#chunk.length === 0) {
      await this.#fill();
      if (this.#ended) {
        throw new Fault("data_loss", "tree: the tar ends before its end mark", { hint: "Send it again" });
      }
    }
    const part = this.#chunk.subarray(0, size);
    this.#chunk = this.#chunk.subarray(part.length);
    return part;
  }

  async #fill(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done === true) this.#ended = true;
    else this.#chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#chunks.return?.();
  }
}
