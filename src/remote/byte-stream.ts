// The bytes of a server stream, handed out one chunk at a time.
import type { ServerStream } from "../rpc/client.ts";
import { agentFault } from "./agent-fault.ts";
import type { Lease } from "./route.ts";
import { Watchdog } from "./watchdog.ts";

/** Longest wait for the next message of a stream, milliseconds. */
export const STALL_MS = 60_000;

export interface ByteStreamOptions<M> {
  readonly stream: ServerStream<M>;
  readonly lease: Lease;
  readonly botId: string;
  /** The bytes of a message; throws when the message is not acceptable. */
  readonly take: (message: M) => Uint8Array;
  /** Called when the stream ended well; throws when the end came too early. */
  readonly atEnd?: () => void;
  /** Called once with the reason when the bytes end before their end: an error, or the reader leaving. */
  readonly onBroken?: (reason: unknown) => void;
}

/**
 * Reads a stream once. Leaving the loop, an unacceptable message and an agent that stops in the middle all cancel the
 * call. Written out by hand, because a generator that was never started does not clean up.
 */
export class ByteStream<M> implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array, undefined> {
  readonly #options: ByteStreamOptions<M>;
  readonly #messages: AsyncIterator<M>;
  readonly #watchdog: Watchdog;
  #done = false;

  constructor(options: ByteStreamOptions<M>) {
    this.#options = options;
    this.#messages = options.stream[Symbol.asyncIterator]();
    this.#watchdog = new Watchdog(options.lease, options.botId, STALL_MS);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const { take, atEnd, lease, botId } = this.#options;
    try {
      while (!this.#done) {
        const result = await this.#watchdog.during(this.#messages.next());
        if (result.done === true) {
          atEnd?.();
          this.#finish();
          break;
        }
        const bytes = take(result.value);
        if (bytes.length > 0) return { done: false, value: bytes };
      }
      return { done: true, value: undefined };
    } catch (error) {
      const fault = agentFault(error, botId, lease.signal);
      await this.#break(fault);
      throw fault;
    }
  }

  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    await this.#break(undefined);
    return { done: true, value: undefined };
  }

  async #break(reason: unknown): Promise<void> {
    if (this.#done) return;
    this.#finish();
    this.#options.onBroken?.(reason);
    await this.#options.stream[Symbol.asyncDispose]();
  }

  #finish(): void {
    this.#done = true;
    this.#watchdog[Symbol.dispose]();
  }
}
