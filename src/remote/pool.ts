// One checked connection per bot, made when first needed and given up as soon as anything about it changes.
import type { Wait, Workspace, WorkspaceProvider } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { abortable, deadline, sleep, throwIfAborted } from "../lib/signal.ts";
import type { Connection } from "./connection.ts";
import { dial, type Endpoint, type Keepalive } from "./dial.ts";
import { RemoteWorkspace } from "./remote-workspace.ts";
import type { Lease } from "./route.ts";

/**
 * Tells where a bot's agent answers now.
 * @throws Fault not_found, or failed_precondition when the bot does not run
 */
export type EndpointSource = (botId: string, wait?: Wait) => Promise<Endpoint>;

export interface PoolOptions {
  readonly endpoints: EndpointSource;
  readonly log: Logger;
  /** For finding the endpoint, connecting and Hello together, milliseconds. */
  readonly dialMs?: number;
  /** A connection without a call for so long is closed, milliseconds; 0 is never. */
  readonly idleMs?: number;
  /** Every 30 s, 10 s for the answer, when absent. */
  readonly keepalive?: Keepalive;
}

interface Dialling {
  readonly abort: AbortController;
  /** Undefined when the bot was evicted meanwhile. */
  readonly connection: Promise<Connection | undefined>;
}

const DIAL_MS = 10_000;
const IDLE_MS = 5 * 60_000;
/** Pauses between attempts while an agent comes up, milliseconds. */
const FIRST_PAUSE = 5;
const LAST_PAUSE = 100;

/**
 * Gives workspaces whose every call goes over the bot's present connection. A connection that is lost, idle or evicted
 * is never healed: the next call dials anew and checks again who answers. Maps hold what is alive and nothing else.
 */
export class Pool implements WorkspaceProvider, AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #connections = new Map<string, Connection>();
  readonly #dials = new Map<string, Dialling>();
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Bots with a connection or an attempt at one. */
  get size(): number {
    return new Set([...this.#connections.keys(), ...this.#dials.keys()]).size;
  }

  async workspace(botId: string, wait?: Wait): Promise<Workspace> {
    await this.#connect(botId, wait);
    return new RemoteWorkspace({ botId, lease: async (each) => await this.#lease(botId, each) });
  }

  /**
   * Waits for the agent of a bot that was just started.
   * @throws Fault what the last attempt failed with when the time is up; at once when somebody else answers
   */
  async ready(botId: string, options: Wait & { readonly timeoutMs: number }): Promise<Workspace> {
    let last: Fault | undefined;
    const attempts = async (signal: AbortSignal): Promise<Workspace> => {
      for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 1.5, LAST_PAUSE)) {
        try {
          return await this.workspace(botId, { signal });
        } catch (error) {
          if (!Fault.is(error, "unavailable", "deadline_exceeded") || signal.aborted || this.#closed)
            throw error;
          last = error;
        }
        await sleep(pause, signal);
      }
    };
    try {
      return await deadline(options.signal, options.timeoutMs, `agent of bot ${botId}`, attempts);
    } catch (error) {
      if (last === undefined || !Fault.is(error, "deadline_exceeded")) throw error;
      throw new Fault("deadline_exceeded", `${error.message}; ${last.message}`, {
        cause: last,
        hint: last.hint,
      });
    }
  }

  /** Gives up the bot's connection and every call on it; whoever comes next dials anew. */
  evict(botId: string, why = "the bot was stopped or moved"): void {
    const dialling = this.#dials.get(botId);
    this.#dials.delete(botId);
    dialling?.abort.abort(new Fault("aborted", why));
    this.#connections.get(botId)?.close(why);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const dials = [...this.#dials.values()].map(async (each) => await each.connection);
    for (const botId of [...this.#dials.keys(), ...this.#connections.keys()]) {
      this.evict(botId, "memoh host is shutting down");
    }
    await Promise.allSettled(dials);
  }

  async #lease(botId: string, wait: Wait | undefined): Promise<Lease> {
    for (;;) {
      throwIfAborted(wait?.signal);
      const connection = await this.#connect(botId, wait);
      const lease = connection.lease(wait?.signal);
      if (lease !== undefined) return lease;
    }
  }

  async #connect(botId: string, wait: Wait | undefined): Promise<Connection> {
    for (;;) {
      if (this.#closed) throw new Fault("unavailable", "Cannot reach any bot: memoh host is shutting down");
      const present = this.#connections.get(botId);
      if (present !== undefined) return present;
      const dialling = this.#dials.get(botId) ?? this.#start(botId);
      const connection = await abortable(dialling.connection, wait?.signal);
      if (connection?.closed === false) return connection;
    }
  }

  /** Starts an attempt that every caller shares, so it depends on none of their signals. */
  #start(botId: string): Dialling {
    const abort = new AbortController();
    const evicted = () => this.#dials.get(botId)?.abort !== abort;
    const attempt = async (): Promise<Connection | undefined> => {
      try {
        const connection = await this.#dial(botId, abort.signal);
        if (evicted()) {
          connection.close("the bot was stopped or moved");
          return undefined;
        }
        if (connection.closed) throw new Fault("unavailable", `The agent of bot ${botId} went at once`);
        this.#connections.set(botId, connection);
        return connection;
      } catch (error) {
        if (evicted()) return undefined;
        this.#options.log.debug({ botId, err: error }, "cannot connect to an agent");
        throw error;
      } finally {
        if (!evicted()) this.#dials.delete(botId);
      }
    };
    const { promise, resolve } = Promise.withResolvers<Connection | undefined>();
    promise.catch(() => undefined);
    const dialling = { abort, connection: promise };
    this.#dials.set(botId, dialling);
    resolve(attempt());
    return dialling;
  }

  async #dial(botId: string, parent: AbortSignal): Promise<Connection> {
    const timeoutMs = this.#options.dialMs ?? DIAL_MS;
    return await deadline(parent, timeoutMs, `connection to bot ${botId}`, async (signal) => {
      const endpoint = await this.#options.endpoints(botId, { signal });
      if (endpoint.botId !== botId) {
        throw new Fault("internal", `the endpoint of bot ${endpoint.botId} was given for bot ${botId}`);
      }
      const connection: Connection = await dial(endpoint, {
        timeoutMs,
        idleMs: this.#options.idleMs ?? IDLE_MS,
        keepalive: this.#options.keepalive,
        signal,
        onClose: (why) => {
          this.#options.log.debug({ botId, why }, "connection to an agent closed");
          if (this.#connections.get(botId) === connection) this.#connections.delete(botId);
        },
      });
      // Nobody waits for it any more.
      if (signal.aborted) connection.close("it came too late");
      return connection;
    });
  }
}
