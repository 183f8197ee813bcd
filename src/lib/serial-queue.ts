// A queue per key: work under one key runs one after the other, different keys never wait for each other.
import { abortable, throwIfAborted } from "./signal.ts";

/** Serial queues that appear with their first item and vanish with their last. */
export class SerialQueue {
  readonly #tails = new Map<string, Promise<unknown>>();

  /**
   * Runs the work after everything queued before it under the same key. A signal that aborts while waiting takes the
   * work out of the queue; once started, the work itself has to heed it.
   */
  async run<T>(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const { promise: done, resolve: release } = Promise.withResolvers<void>();
    const tail = before.then(async () => await done);
    this.#tails.set(key, tail);
    try {
      await abortable(before, signal);
      throwIfAborted(signal);
      return await work();
    } finally {
      release();
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    }
  }

  /** Keys with work waiting or running. */
  get busy(): number {
    return this.#tails.size;
  }
}
