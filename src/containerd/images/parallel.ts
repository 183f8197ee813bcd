// Several pieces of work at once, a few at a time, all ended when one fails.
import { reasonOf, throwIfAborted } from "../../lib/signal.ts";

/**
 * Runs the work on every item, at most `limit` at a time. The first failure aborts the signal of the others and is
 * thrown when all have ended.
 */
export async function inParallel<T>(
  items: readonly T[],
  limit: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const over = new AbortController();
  const onAbort = () => {
    over.abort(signal === undefined ? undefined : reasonOf(signal));
  };
  if (signal?.aborted === true) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  const failures: unknown[] = [];
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) {
      try {
        throwIfAborted(over.signal);
        await work(item, over.signal);
      } catch (error) {
        failures.push(error);
        over.abort(error);
        return;
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
  throwIfAborted(signal);
  if (failures.length > 0) throw failures[0];
}
