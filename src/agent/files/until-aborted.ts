// Iteration that a signal can leave, even when the source itself never comes back.
import { abortable, throwIfAborted } from "../../lib/signal.ts";

/**
 * The items of a source until the signal aborts; then its reason is thrown and the source is told to stop, without
 * waiting for it.
 */
export async function* untilAborted<T>(
  source: AsyncIterable<T> | Iterable<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T> {
  if (signal === undefined || !(Symbol.asyncIterator in source)) {
    for await (const item of source) {
      throwIfAborted(signal);
      yield item;
    }
    return;
  }
  const iterator = source[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      const next = await abortable(iterator.next(), signal);
      if (next.done === true) {
        ended = true;
        return;
      }
      yield next.value;
    }
  } finally {
    if (!ended) void iterator.return?.(undefined)?.catch(() => undefined);
  }
}
