// A small pool of connections: every call has a deadline, heeds its signal, fails fast when Postgres is down and heals
// by itself when it is back.
import { Fault } from "../lib/fault.ts";
import { abortable, throwIfAborted, withDeadline } from "../lib/signal.ts";
import { SingleFlight } from "../lib/single-flight.ts";
import { Connection, type Sql, type Statement } from "./connection.ts";
import { type Doing, faultFromDatabase } from "./sqlstate.ts";
import type { DatabaseTarget } from "./target.ts";

export interface DatabaseOptions {
  /** Connections at most. */
  readonly poolSize?: number | undefined;
  /** Milliseconds the server gives one statement. */
  readonly statementTimeoutMs?: number | undefined;
  /** Milliseconds a call waits for everything: a free connection, the way to the server, the statement. */
  readonly callTimeoutMs?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
  readonly onNotice?: ((message: string) => void) | undefined;
  /** Has to succeed once before the first statement, such as migrations. A failure is the call's, and tried again. */
  readonly prepare?: ((signal: AbortSignal) => Promise<void>) | undefined;
}

/** What a call does, in words for its Fault, and the caller's signal. */
export interface Call extends Doing {
  readonly signal?: AbortSignal | undefined;
}

export class Database implements AsyncDisposable {
  readonly target: DatabaseTarget;
  readonly #options: DatabaseOptions;
  readonly #free: Semaphore;
  readonly #idle: Connection[] = [];
  readonly #open = new Set<Connection>();
  readonly #ending = new Set<Promise<unknown>>();
  readonly #life = new AbortController();
  readonly #preparing = new SingleFlight<void>();
  #prepared: boolean;

  constructor(target: DatabaseTarget, options: DatabaseOptions = {}) {
    this.target = target;
    this.#options = options;
    this.#free = new Semaphore(options.poolSize ?? 6);
    this.#prepared = options.prepare === undefined;
  }

  /**
   * Runs one statement and returns its rows. A rejection by the caller's signal leaves it open whether the statement
   * took effect; it never takes effect later.
   * @throws Fault unavailable when the database is down, else as sqlstate.ts says
   */
  async query<R extends object>(call: Call, build: (sql: Sql) => Statement<R[]>): Promise<R[]> {
    throwIfAborted(call.signal);
    if (this.#life.signal.aborted) throw closedFault(call);
    const ms = this.#options.callTimeoutMs ?? 8_000;
    using limit = withDeadline(call.signal, ms, call.doing);
    try {
      await abortable(this.#prepare(), limit.signal);
      await this.#free.acquire(limit.signal);
      try {
        const connection = this.#takeIdle() ?? (await this.#connect(limit.signal));
        try {
          // A plain array, without what the driver hangs on its own.
          return [...(await connection.run(build, limit.signal))];
        } finally {
          this.#putBack(connection);
        }
      } finally {
        this.#free.release();
      }
    } catch (error) {
      if (call.signal?.aborted !== true) {
        if (this.#life.signal.aborted) throw closedFault(call, error);
        if (limit.signal.aborted) {
          throw new Fault(
            "unavailable",
            `Cannot ${call.doing}: the database did not answer within ${ms / 1000} s`,
            {
              cause: error,
              hint: "See what the database is busy with, or restart it",
            },
          );
        }
      }
      throw faultFromDatabase(error, call);
    }
  }

  /** Does now what would precede the first statement. @throws Fault */
  async ready(signal?: AbortSignal): Promise<void> {
    await abortable(this.#prepare(), signal);
  }

  /** Refuses new calls, gives those under way a second, and closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new Fault("cancelled", "the store was closed"));
    for (const connection of this.#open) this.#end(connection);
    while (this.#ending.size > 0) await Promise.all(this.#ending);
  }

  async #prepare(): Promise<void> {
    if (this.#prepared) return;
    await this.#preparing.run("prepare", async () => {
      // Not one caller's to cancel: the others wait for it too.
      const preparing = this.#options.prepare?.(this.#life.signal);
      this.#track(Promise.allSettled([preparing]));
      await preparing;
      this.#prepared = true;
    });
  }

  #takeIdle(): Connection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || connection.usable) return connection;
      this.#end(connection);
    }
  }

  async #connect(signal: AbortSignal): Promise<Connection> {
    const connection = await Connection.open(this.target, {
      signal,
      statementTimeoutMs: this.#options.statementTimeoutMs ?? 5_000,
      connectTimeoutMs: this.#options.connectTimeoutMs,
      onNotice: this.#options.onNotice,
    });
    this.#open.add(connection);
    if (this.#life.signal.aborted) {
      this.#end(connection);
      throwIfAborted(this.#life.signal);
    }
    return connection;
  }

  #putBack(connection: Connection): void {
    if (connection.usable && !this.#life.signal.aborted) this.#idle.push(connection);
    else this.#end(connection);
  }

  #end(connection: Connection): void {
    this.#open.delete(connection);
    this.#track(connection[Symbol.asyncDispose]());
  }

  /** Makes closing wait for it. */
  #track(work: Promise<unknown>): void {
    const tracked = work.finally(() => this.#ending.delete(tracked));
    this.#ending.add(tracked);
  }
}

function closedFault(call: Call, cause?: unknown): Fault {
  return new Fault("cancelled", `Cannot ${call.doing}: the store is closed`, { cause });
}

/** Counts free places; those who wait are served in order. */
class Semaphore {
  #places: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#places = places;
  }

  async acquire(signal: AbortSignal): Promise<void> {
    if (this.#places > 0) {
      this.#places--;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    try {
      await abortable(promise, signal);
    } catch (error) {
      const index = this.#waiting.indexOf(resolve);
      // A place handed over in the very moment of the abort goes on to the next.
      if (index >= 0) this.#waiting.splice(index, 1);
      else this.release();
      throw error;
    }
  }

  release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#places++;
    else next();
  }
}
