// Listening: the unix socket for the CLI and a TCP address for everybody else, closed in two phases.
import { chmod, lstat, rm } from "node:fs/promises";
import type { IncomingMessage, Server } from "node:http";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { createAdaptorServer } from "@hono/node-server";
import { WebSocketServer } from "ws";
import { type Actor, requireAccess } from "../core/access.ts";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { sleep } from "../lib/signal.ts";
import { createApp } from "./app.ts";
import { Authenticator } from "./authenticate.ts";
import type { HttpParts } from "./context.ts";
import { serveExecSocket } from "./exec-socket.ts";
import { problemOf } from "./problem.ts";
import { Tickets } from "./tickets.ts";

export interface ServeOptions extends HttpParts {
  /** `<run>/memoh.sock` */
  readonly socketPath: string;
  /** `host:port`, or empty for the socket alone. */
  readonly addr: string;
  readonly allowedHosts: readonly string[];
}

/** A running API. */
export interface HttpService extends AsyncDisposable {
  /** The bound TCP address as `host:port`; port 0 was replaced by the real one. */
  readonly address: string | undefined;
}

const DRAIN_MS = 3_000;
const EXEC_PATH = /^\/bots\/([^/]+)\/exec\/ws$/;

/** Starts the API. @throws Fault already_exists when an address is taken */
export async function serve(options: ServeOptions): Promise<HttpService> {
  const tickets = new Tickets();
  const { host, port } = splitAddress(options.addr);
  const authenticator = new Authenticator(options.control, [
    ...(host === undefined ? [] : [host.toLowerCase()]),
    ...options.allowedHosts.map((name) => name.toLowerCase()),
  ]);
  const app = createApp(options, authenticator, tickets);
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 4 << 20 });

  const make = (trusted: boolean): Server => {
    const server = createAdaptorServer({
      fetch: (request, env) => app.fetch(request, { ...env, trusted }),
    }) as Server;
    // Uploads may take hours; a peer that sends no header does not.
    server.requestTimeout = 0;
    server.headersTimeout = 15_000;
    server.on("upgrade", (request, socket, head) => {
      void upgrade(request, socket, head, trusted);
    });
    return server;
  };

  const upgrade = async (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    trusted: boolean,
  ): Promise<void> => {
    socket.on("error", () => socket.destroy());
    try {
      const url = new URL(request.url ?? "/", "http://localhost");
      const ref = EXEC_PATH.exec(url.pathname)?.[1];
      if (ref === undefined) throw new Fault("not_found", `No WebSocket at ${url.pathname}`);
      const signal = AbortSignal.timeout(10_000);
      const caller = {
        path: url.pathname,
        trusted,
        header: (name: string) => {
          const value = request.headers[name];
          return Array.isArray(value) ? value[0] : value;
        },
      };
      authenticator.checkOrigin(caller);
      const actor = actorOfTicket(url, tickets) ?? (await authenticator.actor(caller, signal));
      if (actor === undefined) throw new Fault("unauthenticated", "missing token");
      const bot = await options.control.bot(decodeURIComponent(ref), { signal });
      requireAccess(actor, bot, "change");
      sockets.handleUpgrade(request, socket, head, (opened) => {
        void serveExecSocket(opened, options.control, bot.id, options.log);
      });
    } catch (error) {
      refuse(socket, error, options);
    }
  };

  const local = make(true);
  await removeStaleSocket(options.socketPath);
  await listen(local, { path: options.socketPath });
  await chmod(options.socketPath, 0o600);
  let open: Server | undefined;
  try {
    if (host !== undefined && port !== undefined) {
      open = make(false);
      await listen(open, { host: host.replace(/^\[|\]$/g, ""), port });
    }
  } catch (error) {
    local.close();
    await rm(options.socketPath, { force: true });
    throw error;
  }
  const bound = open?.address();
  return {
    address:
      host !== undefined && typeof bound === "object" && bound !== null ? `${host}:${bound.port}` : undefined,
    [Symbol.asyncDispose]: async () => {
      const servers = open === undefined ? [local] : [local, open];
      const closed = Promise.all(servers.map((server) => close(server)));
      for (const socket of sockets.clients) socket.close(1001, "the host is stopping");
      await Promise.race([closed, sleep(DRAIN_MS)]);
      for (const socket of sockets.clients) socket.terminate();
      for (const server of servers) server.closeAllConnections();
      await closed;
      await rm(options.socketPath, { force: true });
    },
  };
}

function actorOfTicket(url: URL, tickets: Tickets): Actor | undefined {
  const ticket = url.searchParams.get("ticket");
  if (ticket === null) return undefined;
  const actor = tickets.redeem(ticket);
  if (actor === undefined) {
    throw new Fault("unauthenticated", "invalid ticket", {
      hint: "A ticket opens one socket within 30 seconds",
    });
  }
  return actor;
}

function refuse(socket: Duplex, error: unknown, options: HttpParts): void {
  const problem = problemOf(error, options.log);
  const body = JSON.stringify(problem);
  socket.end(
    `HTTP/1.1 ${problem.status} Refused\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

/** `127.0.0.1:8080` or `[::1]:8080`. */
function splitAddress(addr: string): { host: string | undefined; port: number | undefined } {
  if (addr === "") return { host: undefined, port: undefined };
  const match = /^(.*):(\d{1,5})$/.exec(addr);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw new Fault("invalid_argument", `Cannot listen on ${addr}`, { hint: "Write http.addr as HOST:PORT" });
  }
  return { host: match[1] === "" || match[1] === undefined ? "0.0.0.0" : match[1], port };
}

async function listen(
  server: Server,
  where: { path: string } | { host: string; port: number },
): Promise<void> {
  const name = "path" in where ? where.path : `${where.host}:${where.port}`;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("listening", resolve);
  server.once("error", (error) => {
    const taken = errnoOf(error) === "EADDRINUSE";
    reject(
      new Fault(taken ? "already_exists" : "unavailable", `Cannot listen on ${name}: ${error.message}`, {
        cause: error,
        hint: taken ? "Stop the program that holds it, or set http.addr to another port" : undefined,
      }),
    );
  });
  server.listen(where);
  await promise;
}

/** A socket left by a host that was killed. Anything else at that path is left alone. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new Fault("failed_precondition", `Cannot listen on ${path}: something else is there`);
  }
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = connect(path);
  probe.once("connect", () => {
    resolve(true);
  });
  probe.once("error", () => {
    resolve(false);
  });
  const alive = await promise;
  probe.destroy();
  if (alive) {
    throw new Fault("already_exists", `Cannot listen on ${path}: a host is already running`, {
      hint: "Stop it first: memoh host --stop",
    });
  }
  await rm(path, { force: true });
}

async function close(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => {
    resolve();
  });
  server.closeIdleConnections();
  await promise;
}
