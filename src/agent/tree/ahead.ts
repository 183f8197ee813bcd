// Work on the next items of a stream while the current one is used, in order and never more than so many at a time.

/**
 * Maps items with up to `width` mappings under way. A mapping starts before the next item is asked for. When the loop
 * over the results is left, what is under way is finished and given to `discard`.
 */
export async function* ahead<T, U>(
  items: AsyncIterable<T>,
  width: number,
  map: (item: T) => Promise<U>,
  discard: (unused: U) => Promise<void>,
): AsyncGenerator<U> {
  const source = items[Symbol.asyncIterator]();
  const queue: Promise<U>[] = [];
  let ended = false;
  try {
    for (;;) {
      while (!ended && queue.length < width) {
        const next = await source.next();
        if (next.done === true) {
          ended = true;
          break;
        }
        const mapped = map(next.value);
        // Seen where it is taken from the queue.
        mapped.catch(() => undefined);
        queue.push(mapped);
      }
      const first = queue.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    for (const unused of await Promise.allSettled(queue)) {
      if (unused.status === "fulfilled") await discard(unused.value);
    }
    await source.return?.();
  }
}
