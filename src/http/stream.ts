// Async iterables as response bodies, pulled only as fast as the client reads.

/** A web stream over an iterable; a client that goes away ends the iterable. */
export function streamOf(source: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const next = await iterator.next();
        if (next.done === true) controller.close();
        else controller.enqueue(next.value);
      },
      cancel: async () => {
        await iterator.return?.();
      },
    },
    { highWaterMark: 1 },
  );
}

/** One JSON document per line. */
export async function* linesOf(source: AsyncIterable<unknown>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const item of source) yield encoder.encode(`${JSON.stringify(item)}\n`);
}

/** Calls of a listener as an async iterable: `work` runs, what it emits comes out, its result or error ends it. */
export async function* emitted<T>(work: (emit: (item: T) => void) => Promise<T>): AsyncGenerator<T> {
  const items: T[] = [];
  let wake = Promise.withResolvers<void>();
  let settled = false;
  const outcome = work((item) => {
    items.push(item);
    wake.resolve();
  }).finally(() => {
    settled = true;
    wake.resolve();
  });
  for (;;) {
    await wake.promise;
    wake = Promise.withResolvers<void>();
    yield* items.splice(0);
    if (settled) {
      yield await outcome;
      return;
    }
  }
}
