// One connection to Postgres: opened once, never reconnected behind our back, thrown away after a cancelled statement.
import { readFile } from "node:fs/promises";
import { connect, isIP, type Socket } from "node:net";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import postgres from "postgres";
import { abortable, deadline, reasonOf, throwIfAborted, withDeadline } from "../lib/signal.ts";
import type { DatabaseTarget } from "./target.ts";

export type Sql = postgres.Sql;
/** A statement that is not sent yet. */
export type Statement<T extends readonly postgres.MaybeRow[]> = postgres.PendingQuery<T>;

export interface ConnectionOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds the server gives a statement; 0 is no limit. */
  readonly statementTimeoutMs: number;
  /** Milliseconds to reach the server and be let in; 5 s when absent. */
  readonly connectTimeoutMs?: number | undefined;
  /** Hears notices of the server and what went wrong while a connection ended. */
  readonly onNotice?: ((message: string) => void) | undefined;
}

const CONNECT_MS = 5_000;
/** Time to have a statement cancelled and to say goodbye. */
const CLOSE_MS = 3_000;

/**
 * The driver is given a socket of ours that it cannot replace, so a connection that broke stays broken: no statement
 * lands outside the transaction or the backend it was meant for. Statements run one at a time; the caller sees to that.
 */
export class Connection implements AsyncDisposable {
  readonly #sql: Sql;
  readonly #socket: Socket;
  readonly #target: DatabaseTarget;
  readonly #notice: (message: string) => void;
  #pid = 0;
  #broken = false;
  /** Fails the statement under way. */
  #onBroken: (() => void) | undefined;
  #ending: Promise<void> | undefined;

  private constructor(target: DatabaseTarget, socket: Socket, tls: TlsSetting, options: ConnectionOptions) {
    this.#target = target;
    this.#socket = socket;
    this.#notice = options.onNotice ?? (() => undefined);
    let given = false;
    const settings: postgres.Options<Record<string, never>> & { socket: () => Socket } = {
      socket: () => {
        if (given || socket.destroyed) throw closedError();
        given = true;
        return socket;
      },
      // Every option is given, because the driver takes what is absent from the environment.
      host: target.host.startsWith("/") ? "localhost" : target.host,
      port: target.port,
      ...(target.host.startsWith("/") ? { path: socketFile(target) } : {}),
      user: target.user,
      database: target.database,
      password: target.password,
      ssl: tls,
      max: 1,
      prepare: true,
      fetch_types: false,
      idle_timeout: 0,
      max_lifetime: null,
      // `open` has the limit; the driver's own would fire without a word when it is the shorter one.
      connect_timeout: 0,
      keep_alive: 30,
      backoff: () => 0,
      debug: false,
      transform: { column: { from: postgres.toCamel } },
      connection: {
        application_name: target.applicationName,
        statement_timeout: options.statementTimeoutMs,
        idle_in_transaction_session_timeout: 60_000,
        TimeZone: "UTC",
      },
      onnotice: (notice) => {
        this.#notice(notice["message"] ?? "");
      },
      onclose: () => {
        this.#broken = true;
        this.#onBroken?.();
      },
    };
    this.#sql = postgres(settings);
  }

  /** Connects and authenticates. Errors are the driver's or the system's own. */
  static async open(target: DatabaseTarget, options: ConnectionOptions): Promise<Connection> {
    using limit = withDeadline(
      options.signal,
      options.connectTimeoutMs ?? CONNECT_MS,
      "connect to the database",
    );
    try {
      const tls = await tlsSetting(target);
      const socket = await dial(target, limit.signal);
      const connection = new Connection(target, socket, tls, options);
      // The driver listens a moment later than a server can hang up.
      const hangup = Promise.withResolvers<never>();
      socket.once("close", () => {
        hangup.reject(closedError());
      });
      try {
        const greeting = connection.#sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
        const [row] = await abortable(Promise.race([greeting, hangup.promise]), limit.signal);
        connection.#pid = row?.pid ?? 0;
        return connection;
      } catch (error) {
        connection.#cut();
        throw error;
      }
    } catch (error) {
      // Our own limit means a server that accepts and says nothing.
      if (limit.signal.aborted && options.signal?.aborted !== true) {
        throw Object.assign(new Error("no answer from the database", { cause: error }), {
          code: "CONNECT_TIMEOUT",
        });
      }
      throw error;
    }
  }

  /** Whether another statement may be sent. */
  get usable(): boolean {
    return !this.#broken && this.#ending === undefined;
  }

  /**
   * Sends a statement and waits for its result. A signal that aborts meanwhile rejects at once; the statement is
   * cancelled on the server and the connection ends by itself.
   */
  async run<T extends readonly postgres.MaybeRow[]>(
    build: (sql: Sql) => Statement<T>,
    signal?: AbortSignal,
  ): Promise<postgres.RowList<T>> {
    throwIfAborted(signal);
    if (!this.usable) throw closedError();
    // The driver forgets a statement that is sent between the error of its socket and the close of it.
    const broken = Promise.withResolvers<never>();
    this.#onBroken = () => {
      broken.reject(closedError());
    };
    try {
      return await abortable(Promise.race([build(this.#sql), broken.promise]), signal);
    } catch (error) {
      if (signal?.aborted === true) {
        this.#ending ??= this.#cancel();
        throw reasonOf(signal);
      }
      throw error;
    }
  }

  /** Ends the connection, and waits for a cancelled statement to be gone first. Never rejects. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending ??= this.#close();
    await this.#ending;
  }

  /**
   * The driver's own cancel would leave a rejection nobody handles when the server is gone, and says nothing when it
   * is done; so the server is asked over a second connection.
   */
  async #cancel(): Promise<void> {
    const pid = this.#pid;
    try {
      await using other = await Connection.open(this.#target, { statementTimeoutMs: CLOSE_MS });
      await deadline(undefined, CLOSE_MS, "cancel a statement", async (signal) => {
        await other.run((sql) => sql`select pg_cancel_backend(${pid})`, signal);
      });
    } catch (error) {
      // A server out of reach has either ended the statement or will, by its statement timeout.
      this.#notice(`a statement was left to its timeout: ${String(error)}`);
    } finally {
      await this.#close();
    }
  }

  async #close(): Promise<void> {
    // The driver would wait for the answer to a statement that broke with the connection.
    if (this.#broken) return;
    try {
      await deadline(undefined, CLOSE_MS, "close a connection", async () => {
        await this.#sql.end({ timeout: 1 });
      });
    } catch (error) {
      // Cutting the socket ends the session as surely.
      this.#notice(`a connection was cut: ${String(error)}`);
    } finally {
      this.#cut();
    }
  }

  #cut(): void {
    this.#broken = true;
    this.#socket.destroy();
  }
}

/** In the driver's words, which sqlstate.ts knows. */
function closedError(): Error {
  return Object.assign(new Error("the connection is closed"), { code: "CONNECTION_CLOSED" });
}

type TlsSetting = boolean | "prefer" | { [option: string]: unknown };

async function tlsSetting(target: DatabaseTarget): Promise<TlsSetting> {
  if (target.tls === "disable") return false;
  if (target.tls === "prefer" && target.rootCert === undefined) return "prefer";
  const verify = target.tls.startsWith("verify");
  return {
    rejectUnauthorized: verify,
    ...(isIP(target.host) === 0 ? { servername: target.host } : { host: target.host }),
    ...(target.rootCert === undefined ? {} : { ca: await readFile(target.rootCert) }),
    ...(target.tls === "verify-ca" ? { checkServerIdentity: () => undefined } : {}),
  };
}

/** Where a server of a socket directory listens. */
export function socketFile(target: Pick<DatabaseTarget, "host" | "port">): string {
  return join(target.host, `.s.PGSQL.${target.port}`);
}

async function dial(target: DatabaseTarget, signal: AbortSignal): Promise<Socket> {
  const socket = target.host.startsWith("/")
    ? connect({ path: socketFile(target) })
    : connect({ host: target.host, port: target.port });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("connect", resolve);
  socket.on("error", reject);
  try {
    await abortable(promise, signal);
    return socket;
  } catch (error) {
    socket.destroy();
    // Bun reports a refusal without a turn of the event loop: whoever tries again at once would starve everything else.
    await setImmediate();
    throw error;
  }
}
