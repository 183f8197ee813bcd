// gRPC client: typed calls over one channel, with AbortSignal, deadlines, backpressure and Faults.
import type {
  DescMessage,
  DescMethod,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Fault } from "../lib/fault.ts";
import { reasonOf, throwIfAborted } from "../lib/signal.ts";
import { decode, encode, methodPath } from "./codec.ts";
import { breakOff, brokenBytes, send, streamLimit, writeMessage } from "./request-stream.ts";
import { faultFromStatus } from "./status.ts";

/** Options of one call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the call ends with `deadline_exceeded`; the deadline travels to the server. */
  readonly timeoutMs?: number | undefined;
  /** Sent with the call, over the channel's own metadata. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Wait for the channel to connect instead of failing at once while it cannot. */
  readonly waitForReady?: boolean | undefined;
}

/** Messages from the server. Read from the moment of the call, at most 16 wait unread. Leaving the loop cancels. */
export interface ServerStream<O> extends AsyncIterable<O>, AsyncDisposable {
  /** Resolves with the response headers: the server has taken the call on. Rejects when the call fails before them. */
  readonly accepted: Promise<void>;
  /**
   * Aborts once the call has its final status, with its Fault or, when it went well, with `cancelled`. Messages that came
   * before it may still wait to be read.
   */
  readonly over: AbortSignal;
}

/** Both directions of a call. */
export interface BidiStream<I, O> extends AsyncDisposable {
  /** Resolves when the transport takes more; rejects when the call is over. */
  write(message: I): Promise<void>;
  /** Half-closes: no more messages from here. */
  end(): void;
  readonly responses: ServerStream<O>;
}

type Method<M> = M extends {
  methodKind: infer Kind;
  input: infer I extends DescMessage;
  output: infer O extends DescMessage;
}
  ? Kind extends "unary"
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : Kind extends "server_streaming"
      ? (request: MessageInitShape<I>, options?: CallOptions) => ServerStream<MessageShape<O>>
      : Kind extends "client_streaming"
        ? (
            requests: AsyncIterable<MessageInitShape<I>> | Iterable<MessageInitShape<I>>,
            options?: CallOptions,
          ) => Promise<MessageShape<O>>
        : (options?: CallOptions) => BidiStream<MessageInitShape<I>, MessageShape<O>>
  : never;

/** Every rpc of a service as a function. */
export type RpcClient<S extends DescService> = { readonly [K in keyof S["method"]]: Method<S["method"][K]> };

/**
 * Makes the client of a service on a channel.
 * @param defaults merged under the options of every call
 */
export function createClient<S extends DescService>(
  service: S,
  channel: grpc.Client,
  defaults: CallOptions = {},
): RpcClient<S> {
  const client: Record<string, unknown> = {};
  for (const method of service.methods) {
    const path = methodPath(service, method);
    const merge = (options: CallOptions | undefined): CallOptions => ({
      ...defaults,
      ...options,
      metadata: { ...defaults.metadata, ...options?.metadata },
    });
    client[method.localName] = makeCall(channel, method, path, merge);
  }
  return client as RpcClient<S>;
}

type Merge = (options: CallOptions | undefined) => CallOptions;

function makeCall(channel: grpc.Client, method: DescMethod, path: string, merge: Merge): unknown {
  const serialize = (message: unknown) =>
    brokenBytes(message) ?? encode(method.input, message as MessageInitShape<DescMessage>);
  const deserialize = (bytes: Buffer) => decode(method.output, bytes) as unknown;
  switch (method.methodKind) {
    case "unary":
      return async (request: unknown, options?: CallOptions) => {
        const merged = merge(options);
        throwIfAborted(merged.signal);
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const call = channel.makeUnaryRequest(
          path,
          serialize,
          deserialize,
          request,
          metadataOf(merged),
          callOptions(merged),
          (error, value) => {
            if (error === null) resolve(value);
            else reject(error);
          },
        );
        return await settle(call.cancel.bind(call), promise, merged.signal);
      };
    case "server_streaming":
      return (request: unknown, options?: CallOptions) => {
        const merged = merge(options);
        const call = channel.makeServerStreamRequest(
          path,
          serialize,
          deserialize,
          request,
          metadataOf(merged),
          callOptions(merged),
        );
        return readable(call, call.cancel.bind(call), merged.signal);
      };
    case "client_streaming":
      return async (requests: AsyncIterable<unknown> | Iterable<unknown>, options?: CallOptions) => {
        const merged = merge(options);
        throwIfAborted(merged.signal);
        using limit = streamLimit(merged, method.name);
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const over = new AbortController();
        const call = channel.makeClientStreamRequest(
          path,
          serialize,
          deserialize,
          metadataOf(merged),
          limit.callOptions,
          (error, value) => {
            over.abort();
            if (error === null) resolve(value);
            else reject(error);
          },
        );
        call.on("error", () => undefined);
        const cancel = () => {
          breakOff(call);
        };
        // The answer may come before the last message is sent: then the rest is not pulled.
        void send(call, requests, over.signal).catch((error: unknown) => {
          if (!over.signal.aborted) {
            cancel();
            reject(error);
          }
        });
        try {
          return await settle(cancel, promise, limit.signal);
        } finally {
          over.abort();
        }
      };
    case "bidi_streaming":
      return (options?: CallOptions) => {
        const merged = merge(options);
        const limit = streamLimit(merged, method.name);
        const call = channel.makeBidiStreamRequest(
          path,
          serialize,
          deserialize,
          metadataOf(merged),
          limit.callOptions,
        );
        call.on("status", () => {
          limit[Symbol.dispose]();
        });
        const cancel = () => {
          breakOff(call);
        };
        const responses = readable(call, cancel, limit.signal);
        return {
          write: async (message: unknown) => {
            await writeMessage(call, message, responses.over);
          },
          end: () => {
            call.end();
          },
          responses,
          [Symbol.asyncDispose]: async () => {
            await responses[Symbol.asyncDispose]();
          },
        };
      };
  }
}

async function settle(
  cancel: () => void,
  promise: Promise<unknown>,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  signal?.addEventListener("abort", cancel, { once: true });
  if (signal?.aborted === true) cancel();
  try {
    return await promise;
  } catch (error) {
    throw faultFromStatus(error, signal);
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

interface Readable extends NodeJS.EventEmitter {
  read(): unknown;
}

/**
 * Reads a call's responses. The `readable` listener is attached at once: without it grpc-js buffers without bound.
 * What arrived before a failing status is handed out first.
 */
function readable(
  call: Readable,
  cancel: () => void,
  signal: AbortSignal | undefined,
): ServerStream<unknown> {
  const over = new AbortController();
  const accepted = Promise.withResolvers<void>();
  // Nobody has to wait for the headers.
  accepted.promise.catch(() => undefined);
  call.on("metadata", () => {
    accepted.resolve();
  });
  let status: grpc.StatusObject | undefined;
  let wake = Promise.withResolvers<void>();
  const ring = () => {
    wake.resolve();
  };
  call.on("readable", ring);
  call.on("end", ring);
  // The status event follows and says the same.
  call.on("error", ring);
  call.on("status", (final: grpc.StatusObject) => {
    status = final;
    if (final.code === grpc.status.OK) {
      accepted.resolve();
      over.abort(new Fault("cancelled", "the call is over"));
    } else {
      const fault = faultFromStatus(final, signal);
      accepted.reject(fault);
      over.abort(fault);
    }
    signal?.removeEventListener("abort", cancel);
    ring();
  });
  if (signal?.aborted === true) cancel();
  else signal?.addEventListener("abort", cancel, { once: true });

  const next = async (): Promise<IteratorResult<unknown>> => {
    for (;;) {
      const waiting = wake.promise;
      const message = call.read();
      if (message !== null && message !== undefined) return { done: false, value: message };
      if (status !== undefined) {
        if (status.code === grpc.status.OK) return { done: true, value: undefined };
        throw faultFromStatus(status, signal);
      }
      if (signal?.aborted === true) throw reasonOf(signal);
      await waiting;
      if (wake.promise === waiting) wake = Promise.withResolvers<void>();
    }
  };
  const stop = (): Promise<IteratorResult<unknown>> => {
    if (status === undefined) cancel();
    return Promise.resolve({ done: true, value: undefined });
  };
  return {
    accepted: accepted.promise,
    over: over.signal,
    [Symbol.asyncIterator]: () => ({ next, return: stop }),
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

/**
 * Waits for the first message of a stream, so that an error which precedes it is thrown here and not in the middle of
 * somebody's loop. An empty stream is returned as one.
 */
export async function opened<T>(stream: ServerStream<T>): Promise<ServerStream<T>> {
  const iterator = stream[Symbol.asyncIterator]();
  let first: IteratorResult<T> | undefined = await iterator.next();
  const stop = async (): Promise<IteratorResult<T>> => {
    await stream[Symbol.asyncDispose]();
    return { done: true, value: undefined };
  };
  return {
    accepted: stream.accepted,
    over: stream.over,
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        if (first === undefined) return await iterator.next();
        const result = first;
        first = undefined;
        return result;
      },
      return: stop,
    }),
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

function metadataOf(options: CallOptions): grpc.Metadata {
  const metadata = new grpc.Metadata({ waitForReady: options.waitForReady ?? false });
  for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
  return metadata;
}

function callOptions(options: CallOptions): grpc.CallOptions {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}
