// The client of the host's API over its unix socket: JSON, streams both ways, sockets. Problems come back as Faults.
import { type IncomingMessage, request } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { WebSocket } from "ws";
import { errnoOf } from "../lib/errno.ts";
import { CODES, type Code, Fault } from "../lib/fault.ts";
import { reasonOf } from "../lib/signal.ts";

/** One request. */
export interface ApiRequest {
  readonly method?: "GET" | "POST" | "PUT" | "DELETE";
  /** With query. */
  readonly path: string;
  readonly json?: unknown;
  /** A streamed body. */
  readonly body?: AsyncIterable<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
  /** A 503 is an answer, as of /ready, and not an error. */
  readonly takes503?: boolean;
}

/** A client of one host. */
export class ApiClient {
  readonly socketPath: string;

  constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  /** The JSON answer; undefined for an empty one. @throws Fault as the host sent it */
  async json(call: ApiRequest): Promise<unknown> {
    const response = await this.#send(call);
    const text = await textOf(response);
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  }

  /** The answer's bytes as they come. A connection that breaks throws. */
  async stream(call: ApiRequest): Promise<AsyncIterable<Uint8Array>> {
    return await this.#send(call);
  }

  /** One JSON document per line. */
  async *lines(call: ApiRequest): AsyncGenerator {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of await this.stream(call)) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) if (line !== "") yield JSON.parse(line) as unknown;
    }
    if (rest !== "") yield JSON.parse(rest) as unknown;
  }

  /** An open WebSocket. */
  async socket(path: string): Promise<WebSocket> {
    const socket = new WebSocket(`ws+unix:${this.socketPath}:${path}`, { maxPayload: 8 << 20 });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.once("open", resolve);
    socket.on("error", (error) => {
      reject(this.#unreachable(error));
    });
    socket.once("unexpected-response", (_request, response: IncomingMessage) => {
      textOf(response).then(
        (text) => {
          reject(faultOf(response.statusCode ?? 500, text));
        },
        (error: unknown) => {
          reject(Fault.from(error));
        },
      );
    });
    await promise;
    return socket;
  }

  async #send(call: ApiRequest): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const payload = call.json === undefined ? undefined : JSON.stringify(call.json);
    const outgoing = request(
      {
        socketPath: this.socketPath,
        path: call.path,
        method: call.method ?? "GET",
        headers: {
          host: "localhost",
          ...(payload === undefined
            ? {}
            : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
          ...(call.body === undefined ? {} : { "content-type": "application/octet-stream" }),
        },
        ...(call.signal === undefined ? {} : { signal: call.signal }),
      },
      resolve,
    );
    outgoing.on("error", (error) => {
      reject(call.signal?.aborted === true ? reasonOf(call.signal) : this.#unreachable(error));
    });
    if (call.body === undefined) outgoing.end(payload);
    else {
      // The host may refuse before the body is sent: then its answer counts, not the broken pipe.
      pipeline(Readable.from(call.body), outgoing).catch((error: unknown) => {
        reject(error);
      });
    }
    const response = await promise;
    const status = response.statusCode ?? 500;
    if (status < 400 || (status === 503 && call.takes503 === true)) return response;
    throw faultOf(status, await textOf(response));
  }

  #unreachable(error: Error): Fault {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ECONNREFUSED") {
      return new Fault("unavailable", `Cannot reach the host at ${this.socketPath}: it is not running`, {
        hint: "Start it with: memoh host --detach",
        cause: error,
      });
    }
    if (errno === "EACCES") {
      return new Fault("permission_denied", `Cannot use ${this.socketPath}: permission denied`, {
        hint: "Run memoh as root",
        cause: error,
      });
    }
    return new Fault("unavailable", `The host broke off: ${error.message}`, { cause: error });
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

/** The Fault of a problem body, or of a bare status. */
export function faultOf(status: number, text: string): Fault {
  try {
    const problem = JSON.parse(text) as { code?: unknown; message?: unknown; hint?: unknown };
    if (typeof problem.code === "string" && problem.code in CODES && typeof problem.message === "string") {
      return new Fault(problem.code as Code, problem.message, {
        hint: typeof problem.hint === "string" ? problem.hint : undefined,
        http: status,
      });
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return new Fault("unknown", `The host answered ${status}: ${text.slice(0, 200)}`);
}
