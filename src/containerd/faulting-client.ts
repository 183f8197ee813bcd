// Clients of containerd's services: default deadlines on the way in, containerd's errors made Faults on the way out.
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { RpcChannel } from "../rpc/channel.ts";
import type { BidiStream, CallOptions, RpcClient, ServerStream } from "../rpc/client.ts";
import { containerdFault } from "./containerd-fault.ts";

export interface FaultingOptions {
  readonly socket: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of calls that name no time of their own; `timeoutMs: undefined` in a call's options means none. */
  readonly timeoutMs: number;
}

/** The client of one service whose every failure is a translated Fault. */
export function faultingClient<S extends DescService>(
  channel: RpcChannel,
  service: S,
  options: FaultingOptions,
): RpcClient<S> {
  const inner = channel.client(service, { metadata: options.metadata }) as Record<string, unknown>;
  const outer: Record<string, unknown> = {};
  const serviceName = service.name;
  for (const method of service.methods) {
    outer[method.localName] = wrap(serviceName, method, inner[method.localName], options);
  }
  return outer as RpcClient<S>;
}

type Translate = (error: unknown) => unknown;

function wrap(service: string, method: DescMethod, call: unknown, options: FaultingOptions): unknown {
  const begin = (given: CallOptions | undefined): { merged: CallOptions; translate: Translate } => {
    const merged: CallOptions = endsByItself(method)
      ? { timeoutMs: options.timeoutMs, ...given }
      : { ...given };
    const deadline = merged.timeoutMs === undefined ? Infinity : Date.now() + merged.timeoutMs;
    return {
      merged,
      translate: (error) =>
        // The caller's own abort is not containerd's error.
        merged.signal?.aborted === true
          ? error
          : containerdFault(error, {
              method: `${service}.${method.name}`,
              socket: options.socket,
              late: Date.now() >= deadline,
            }),
    };
  };
  switch (method.methodKind) {
    case "unary":
      return async (request: unknown, given?: CallOptions) => {
        const { merged, translate } = begin(given);
        try {
          return await (call as (r: unknown, o: CallOptions) => Promise<unknown>)(request, merged);
        } catch (error) {
          throw translate(error);
        }
      };
    case "client_streaming":
      return async (requests: unknown, given?: CallOptions) => {
        const { merged, translate } = begin(given);
        try {
          return await (call as (r: unknown, o: CallOptions) => Promise<unknown>)(requests, merged);
        } catch (error) {
          throw translate(error);
        }
      };
    case "server_streaming":
      return (request: unknown, given?: CallOptions) => {
        const { merged, translate } = begin(given);
        const stream = (call as (r: unknown, o: CallOptions) => ServerStream<unknown>)(request, merged);
        return translatedStream(stream, translate);
      };
    case "bidi_streaming":
      return (given?: CallOptions): BidiStream<unknown, unknown> => {
        const { merged, translate } = begin(given);
        const stream = (call as (o: CallOptions) => BidiStream<unknown, unknown>)(merged);
        return {
          write: async (message) => {
            try {
              await stream.write(message);
            } catch (error) {
              throw translate(error);
            }
          },
          end: () => {
            stream.end();
          },
          responses: translatedStream(stream.responses, translate),
          [Symbol.asyncDispose]: async () => {
            await stream[Symbol.asyncDispose]();
          },
        };
      };
  }
}

/** Unary calls and lists get the default deadline; reads, writes and subscriptions last as long as their caller. */
function endsByItself(method: DescMethod): boolean {
  return method.methodKind === "unary" || method.name.startsWith("List");
}

function translatedStream(stream: ServerStream<unknown>, translate: Translate): ServerStream<unknown> {
  const accepted = stream.accepted.catch((error: unknown) => {
    throw translate(error);
  });
  accepted.catch(() => undefined);
  return {
    accepted,
    over: stream.over,
    [Symbol.asyncIterator]: () => {
      const iterator = stream[Symbol.asyncIterator]();
      return {
        next: async () => {
          try {
            return await iterator.next();
          } catch (error) {
            throw translate(error);
          }
        },
        return: async () => {
          await stream[Symbol.asyncDispose]();
          return { done: true, value: undefined };
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      await stream[Symbol.asyncDispose]();
    },
  };
}
