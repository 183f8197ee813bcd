// Many small pieces as few chunks: a message per tar header would cost more than what it carries.
import { CHUNK } from "../files/read-raw.ts";

/** A piece this large goes as it is. */
const LARGE = CHUNK / 4;

/** Joins pieces to chunks of at most 256 KiB, keeping their order; large ones pass uncopied. */
export async function* gather(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let buffer = Buffer.allocUnsafeSlow(CHUNK);
  let filled = 0;
  for await (const piece of pieces) {
    if (filled > 0 && (piece.length >= LARGE || filled + piece.length > CHUNK)) {
      yield buffer.subarray(0, filled);
      buffer = Buffer.allocUnsafeSlow(CHUNK);
      filled = 0;
    }
    if (piece.length >= LARGE) yield piece;
    else {
      buffer.set(piece, filled);
      filled += piece.length;
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled);
}
