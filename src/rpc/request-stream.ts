// The client's half of a stream: sending with backpressure, and breaking off so that nobody takes it for an end.
import type * as grpc from "@grpc/grpc-js";
import { abortable, throwIfAborted, withDeadline } from "../lib/signal.ts";

/** In place of a message: bytes that are no message of any type. */
const BREAK = Symbol("break");
/** Field number 0 of wire type 7; there is neither. */
const BREAK_BYTES = Buffer.from([0x07]);

/** What goes out in place of a message that breaks the stream off; undefined for any other. */
export function brokenBytes(message: unknown): Buffer | undefined {
  return message === BREAK ? BREAK_BYTES : undefined;
}

/** Until a call whose messages wait for the peer is cut without the bytes. */
const BREAK_MS = 100;

/**
 * Cancels a call that may still send. grpc-js half-closes an idle stream before it resets it, so a server can take a
 * cancelled upload for a finished one; after bytes that are no message it cannot. A stream that is not idle has its
 * reset go out alone.
 */
export function breakOff(
  call: grpc.ClientWritableStream<unknown> | grpc.ClientDuplexStream<unknown, unknown>,
): void {
  const cut = () => {
    clearTimeout(timer);
    call.cancel();
  };
  const timer = setTimeout(cut, BREAK_MS);
  if (call.writableEnded) cut();
  else call.write(BREAK, cut);
}

/** The limits of one call. Disposed when it is over. */
export interface StreamLimit extends Disposable {
  readonly signal: AbortSignal | undefined;
  readonly callOptions: grpc.CallOptions;
}

/** The deadline of a call that sends a stream is kept here, by breaking off; gRPC's own comes a second later. */
export function streamLimit(
  options: { readonly timeoutMs?: number | undefined; readonly signal?: AbortSignal | undefined },
  name: string,
): StreamLimit {
  const { timeoutMs, signal } = options;
  if (timeoutMs === undefined) return { signal, callOptions: {}, [Symbol.dispose]: () => undefined };
  const limit = withDeadline(signal, timeoutMs, name);
  return {
    signal: limit.signal,
    callOptions: { deadline: Date.now() + timeoutMs + 1_000 },
    [Symbol.dispose]: () => {
      limit[Symbol.dispose]();
    },
  };
}

/** Sends every message and half-closes; stops pulling when the call is over. */
export async function send(
  call: grpc.ClientWritableStream<unknown>,
  requests: AsyncIterable<unknown> | Iterable<unknown>,
  over: AbortSignal,
): Promise<void> {
  for await (const message of requests) {
    if (over.aborted) return;
    await writeMessage(call, message, over);
  }
  call.end();
}

interface Writable extends NodeJS.EventEmitter {
  write(message: unknown): boolean;
}

/** Resolves when the transport takes more. @throws the reason when the call is over */
export async function writeMessage(call: Writable, message: unknown, over: AbortSignal): Promise<void> {
  throwIfAborted(over);
  if (call.write(message)) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  call.once("drain", resolve);
  try {
    await abortable(promise, over);
  } finally {
    call.off("drain", resolve);
  }
}
