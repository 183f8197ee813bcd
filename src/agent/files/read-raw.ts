// Bytes of a file in chunks, read one chunk ahead of whoever takes them.
import type { FileHandle } from "node:fs/promises";
import { Fault } from "../../lib/fault.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import type { BytePath } from "./byte-path.ts";
import { fileFault } from "./file-fault.ts";
import { openRegular } from "./open-regular.ts";

/** Bytes of a chunk: reads get no faster above, a stalled reader pins 32 of them. */
export const CHUNK = 256 << 10;

/** Which bytes: from `offset`, at most `length` (0 or absent: to the end). */
export interface ByteRange {
  readonly offset?: number | undefined;
  readonly length?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens a file and returns its bytes. They can be taken once; the file is closed at their end, when the loop over them
 * is left, and when the signal aborts before they are taken.
 * @throws Fault not_found, permission_denied, failed_precondition (not a regular file), invalid_argument
 */
export async function readRaw(path: BytePath, range: ByteRange): Promise<AsyncIterable<Uint8Array>> {
  const { offset = 0, length = 0, signal } = range;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new Fault("invalid_argument", "offset and length must not be negative");
  }
  throwIfAborted(signal);
  const { handle } = await openRegular(path);
  let started = false;
  const abandon = () => {
    if (started) return;
    started = true;
    void handle.close();
  };
  signal?.addEventListener("abort", abandon, { once: true });
  return {
    [Symbol.asyncIterator]: () => {
      throwIfAborted(signal);
      if (started) throw new Fault("failed_precondition", "these bytes have been taken already");
      started = true;
      signal?.removeEventListener("abort", abandon);
      return chunksOf(handle, path, offset, length === 0 ? Number.MAX_SAFE_INTEGER : length, signal);
    },
  };
}

async function* chunksOf(
  handle: FileHandle,
  path: BytePath,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let left = length;
  let position = offset;
  const next = async (): Promise<Buffer> => {
    // Fresh memory each time: chunks stay with the transport for as long as it likes.
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK, left));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    position += bytesRead;
    left -= bytesRead;
    return buffer.subarray(0, bytesRead);
  };
  let ahead = next();
  try {
    for (;;) {
      const chunk = await ahead;
      if (chunk.length === 0) return;
      throwIfAborted(signal);
      ahead = left > 0 ? next() : Promise.resolve(Buffer.alloc(0));
      // Its failure is thrown where it is awaited, or does not matter because nobody reads on.
      ahead.catch(() => undefined);
      yield chunk;
    }
  } catch (error) {
    throw fileFault(error, "read", path);
  } finally {
    // The file must not be closed under a read: its descriptor may be another file by then.
    await ahead.catch(() => undefined);
    await handle.close();
  }
}
