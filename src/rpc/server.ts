// gRPC server: handlers are async functions over messages, a signal goes in and a Fault comes out.
import { setImmediate } from "node:timers/promises";
import type {
  DescMessage,
  DescMethod,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { abortable, deadline, reasonOf, throwIfAborted } from "../lib/signal.ts";
import { decode, encode, methodPath } from "./codec.ts";
import { nudge } from "./nudge.ts";
import { statusFromFault } from "./status.ts";

/** What a handler knows about its call. */
export interface CallContext {
  /** Aborts when the client cancels or goes, when its deadline passes, and when the call is over. */
  readonly signal: AbortSignal;
  /** Address of the peer as gRPC names it. */
  readonly peer: string;
  readonly metadata: grpc.Metadata;
  /**
   * Sends the response headers now instead of with the first message, so that the client knows its call was taken on.
   * An Exec handler calls it when the process has started. Does nothing the second time.
   */
  readonly accept: () => void;
}

type Handler<M> = M extends {
  methodKind: infer Kind;
  input: infer I extends DescMessage;
  output: infer O extends DescMessage;
}
  ? Kind extends "unary"
    ? (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>>
    : Kind extends "server_streaming"
      ? (request: MessageShape<I>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
      : Kind extends "client_streaming"
        ? (requests: AsyncIterable<MessageShape<I>>, context: CallContext) => Promise<MessageInitShape<O>>
        : (
            requests: AsyncIterable<MessageShape<I>>,
            context: CallContext,
          ) => AsyncIterable<MessageInitShape<O>>
  : never;

/** One handler per rpc of a service. Rpcs left out answer UNIMPLEMENTED. */
export type Handlers<S extends DescService> = { [K in keyof S["method"]]?: Handler<S["method"][K]> };

/** Keys of a TLS server that demands a client certificate. All PEM. */
export interface ServerTls {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
  /** The only CA whose clients are let in. */
  readonly clientCa: Buffer;
}

export interface ServerOptions {
  readonly log: Logger;
  /** Largest message taken, bytes. */
  readonly maxMessage?: number;
}

/** Largest message either end takes: a whole directory list fits (16 MiB) with room to spare. */
export const MAX_MESSAGE = 20 << 20;

/** A gRPC server that closes in two phases. */
export class RpcServer implements AsyncDisposable {
  readonly #server: grpc.Server;
  readonly #log: Logger;
  readonly #credentials: TlsCredentials[] = [];

  constructor(options: ServerOptions) {
    this.#log = options.log;
    this.#server = new grpc.Server({
      "grpc.max_receive_message_length": options.maxMessage ?? MAX_MESSAGE,
      "grpc.max_send_message_length": -1,
      "grpc.max_concurrent_streams": 1000,
    });
  }

  /** Offers a service. */
  add<S extends DescService>(service: S, handlers: Handlers<S>): void {
    const definition: Record<string, grpc.MethodDefinition<unknown, unknown>> = {};
    const implementation: Record<string, grpc.UntypedHandleCall> = {};
    for (const method of service.methods) {
      const handler = (handlers as Record<string, AnyHandler | undefined>)[method.localName];
      if (handler === undefined) continue;
      definition[method.localName] = methodDefinition(service, method);
      implementation[method.localName] = this.#wrap(method, handler);
    }
    this.#server.addService(definition, implementation);
  }

  /**
   * Listens on `host:port` or `unix:/path`.
   * @returns the bound port (0 for a socket path)
   */
  async listen(address: string, tls?: ServerTls): Promise<number> {
    const credentials = tls === undefined ? grpc.ServerCredentials.createInsecure() : new TlsCredentials(tls);
    if (credentials instanceof TlsCredentials) this.#credentials.push(credentials);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#server.bindAsync(address, credentials, (error, port) => {
      if (error === null) resolve(port);
      else {
        const taken = error.message.includes("EADDRINUSE");
        reject(
          new Fault(
            taken ? "already_exists" : "unavailable",
            `Cannot listen on ${address}: ${error.message}`,
            {
              cause: error,
              hint: taken ? "Stop the program that holds the address, or choose another one" : undefined,
            },
          ),
        );
      }
    });
    return promise;
  }

  /** New connections are answered with these keys; running ones go on. */
  renew(tls: ServerTls): void {
    for (const credentials of this.#credentials) credentials.renew(tls);
  }

  /** Refuses new calls, lets running ones finish for `graceMs`, then cuts them. */
  async close(graceMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.tryShutdown(() => {
      resolve();
    });
    try {
      await deadline(undefined, graceMs, "drain of the gRPC server", () => promise);
    } catch (error) {
      this.#log.debug({ err: error }, "cutting rpcs that did not drain");
      this.#server.forceShutdown();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(0);
  }

  #wrap(method: DescMethod, handler: AnyHandler): grpc.UntypedHandleCall {
    switch (method.methodKind) {
      case "unary":
        return (call: grpc.ServerUnaryCall<unknown, unknown>, callback: grpc.sendUnaryData<unknown>) => {
          void this.#answer(method, call, callback, (context) =>
            (handler as (m: unknown, c: CallContext) => Promise<unknown>)(call.request, context),
          );
        };
      case "client_streaming":
        return (call: grpc.ServerReadableStream<unknown, unknown>, callback: grpc.sendUnaryData<unknown>) => {
          void this.#answer(method, call, callback, (context) =>
            (handler as (m: AsyncIterable<unknown>, c: CallContext) => Promise<unknown>)(
              incoming(call, context.signal),
              context,
            ),
          );
        };
      case "server_streaming":
        return (call: grpc.ServerWritableStream<unknown, unknown>) => {
          void this.#stream(method, call, (context) =>
            (handler as (m: unknown, c: CallContext) => AsyncIterable<unknown>)(call.request, context),
          );
        };
      case "bidi_streaming":
        return (call: grpc.ServerDuplexStream<unknown, unknown>) => {
          void this.#stream(method, call, (context) =>
            (handler as (m: AsyncIterable<unknown>, c: CallContext) => AsyncIterable<unknown>)(
              incoming(call, context.signal),
              context,
            ),
          );
        };
    }
  }

  async #answer(
    method: DescMethod,
    call: grpc.ServerUnaryCall<unknown, unknown> | grpc.ServerReadableStream<unknown, unknown>,
    callback: grpc.sendUnaryData<unknown>,
    work: (context: CallContext) => Promise<unknown>,
  ): Promise<void> {
    using scope = callScope(call);
    try {
      callback(null, await work(scope.context));
    } catch (error) {
      callback({ name: "Error", message: "", ...statusFromFault(this.#report(method, error)) });
    }
  }

  async #stream(
    method: DescMethod,
    call: grpc.ServerWritableStream<unknown, unknown> | grpc.ServerDuplexStream<unknown, unknown>,
    work: (context: CallContext) => AsyncIterable<unknown>,
  ): Promise<void> {
    using scope = callScope(call);
    const { signal } = scope.context;
    // A write after the client went errors the stream; the signal already tells the handler.
    call.on("error", () => undefined);
    try {
      for await (const message of work(scope.context)) {
        if (signal.aborted) throw reasonOf(signal);
        if (!call.write(message)) await drained(call, signal);
      }
      call.end();
    } catch (error) {
      call.emit("error", statusFromFault(this.#report(method, error)));
    }
  }

  /** Foreign errors leave as `internal` with a reference; the cause goes to the log. */
  #report(method: DescMethod, error: unknown): Fault {
    if (error instanceof Fault && error.code !== "internal") return error;
    const fault = Fault.from(error);
    if (fault.code === "cancelled") return fault;
    const reference = Math.random().toString(36).slice(2, 10);
    this.#log.error({ err: error, rpc: method.name, reference }, "rpc failed");
    return new Fault(fault.code, `${fault.message} (reference ${reference})`, {
      cause: error,
      hint: fault.hint,
    });
  }
}

/** Keys that can be changed while the server listens, which grpc-js offers to subclasses only. */
class TlsCredentials extends grpc.ServerCredentials {
  constructor(tls: ServerTls) {
    super({ requestCert: true, rejectUnauthorized: true }, contextOf(tls));
  }

  renew(tls: ServerTls): void {
    this.updateSecureContextOptions(contextOf(tls));
  }

  override _equals(other: grpc.ServerCredentials): boolean {
    return this === other;
  }
}

function contextOf(tls: ServerTls): { ca: Buffer; cert: Buffer[]; key: Buffer[] } {
  return { ca: tls.clientCa, cert: [tls.certificate], key: [tls.privateKey] };
}

type AnyHandler =
  | ((request: unknown, context: CallContext) => Promise<unknown>)
  | ((request: unknown, context: CallContext) => AsyncIterable<unknown>)
  | ((requests: AsyncIterable<unknown>, context: CallContext) => Promise<unknown>)
  | ((requests: AsyncIterable<unknown>, context: CallContext) => AsyncIterable<unknown>);

function methodDefinition(service: DescService, method: DescMethod): grpc.MethodDefinition<unknown, unknown> {
  return {
    path: methodPath(service, method),
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (message) => encode(method.input, message as MessageInitShape<DescMessage>),
    requestDeserialize: (bytes) => decode(method.input, bytes),
    responseSerialize: (message) => encode(method.output, message as MessageInitShape<DescMessage>),
    responseDeserialize: (bytes) => decode(method.output, bytes),
  };
}

interface CallScope extends Disposable {
  readonly context: CallContext;
}

type ServerCall =
  | grpc.ServerUnaryCall<unknown, unknown>
  | grpc.ServerReadableStream<unknown, unknown>
  | grpc.ServerWritableStream<unknown, unknown>
  | grpc.ServerDuplexStream<unknown, unknown>;

function callScope(call: ServerCall): CallScope {
  const controller = new AbortController();
  const events: NodeJS.EventEmitter = call;
  events.on("cancelled", () => {
    controller.abort(new Fault("cancelled", "the client cancelled the call"));
  });
  if (call.cancelled) controller.abort(new Fault("cancelled", "the client cancelled the call"));
  let accepted = false;
  const accept = () => {
    if (!accepted && !controller.signal.aborted) call.sendMetadata(new grpc.Metadata());
    accepted = true;
  };
  return {
    context: { signal: controller.signal, peer: call.getPeer(), metadata: call.metadata, accept },
    [Symbol.dispose]() {
      controller.abort(new Fault("cancelled", "the call is over"));
    },
  };
}

/**
 * The client's messages. Ends at its half-close and throws when it cancels, so a broken stream is never taken for a
 * finished one.
 */
async function* incoming(
  call: grpc.ServerReadableStream<unknown, unknown> | grpc.ServerDuplexStream<unknown, unknown>,
  signal: AbortSignal,
): AsyncGenerator {
  // destroyOnReturn would tear down the writing half too when the client half-closes first.
  try {
    for await (const message of call.iterator({ destroyOnReturn: false })) yield message;
  } catch (error) {
    throw signal.aborted ? reasonOf(signal) : error;
  }
  // A grpc-js client that cancels half-closes first, its reset comes a moment later.
  await setImmediate();
  throwIfAborted(signal);
}

async function drained(stream: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once("drain", resolve);
  using _ = nudge(stream);
  try {
    await abortable(promise, signal);
  } finally {
    stream.off("drain", resolve);
  }
}
