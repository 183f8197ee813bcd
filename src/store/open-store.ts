// Opens the store: the pool, the migrations before it, and one object per aggregate.
import type { Role } from "../core/access.ts";
import type { Store } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { PgBots } from "./bots.ts";
import { Database, type DatabaseOptions } from "./database.ts";
import { PgEvents } from "./events.ts";
import { PgIntents } from "./intents.ts";
import { migrateUp, migrationState } from "./migrate.ts";
import { requireUsable } from "./migration-state.ts";
import { PgSettings } from "./settings.ts";
import { type DatabaseTarget, describeTarget, parseDatabaseUrl } from "./target.ts";
import { PgTokens } from "./tokens.ts";
import { ensureUser } from "./users.ts";
import { PgWorkspaces } from "./workspaces.ts";

export interface StoreOptions
  extends Pick<DatabaseOptions, "poolSize" | "statementTimeoutMs" | "callTimeoutMs"> {
  /** A URL, or a target from `databaseTarget` or `openPrivatePostgres`. */
  readonly database: string | DatabaseTarget;
  /** containerd namespace, for the containers rows. */
  readonly namespace: string;
  /** Run pending migrations first; otherwise they are refused. */
  readonly migrate: boolean;
  readonly log: Logger;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens the store. A database that is merely down is no error: calls fail `unavailable` until it answers, and pending
 * migrations run before the first that succeeds.
 * @throws Fault failed_precondition for a database this program must not or cannot use
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const target = typeof options.database === "string" ? parseDatabaseUrl(options.database) : options.database;
  const log = options.log.child({ room: "store", database: describeTarget(target) });
  const database = new Database(target, {
    poolSize: options.poolSize,
    statementTimeoutMs: options.statementTimeoutMs,
    callTimeoutMs: options.callTimeoutMs,
    onNotice: (message) => {
      log.debug(message);
    },
    prepare: async (signal) => {
      await prepareSchema(target, options.migrate, log, signal);
    },
  });
  try {
    await database.ready(options.signal);
  } catch (error) {
    if (!Fault.is(error, "unavailable")) {
      await database[Symbol.asyncDispose]();
      throw error;
    }
    log.warn({ err: error }, "the database is down; going on without it until it answers");
  }
  return new PgStore(database, options.namespace);
}

async function prepareSchema(
  target: DatabaseTarget,
  migrate: boolean,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  if (migrate) {
    await migrateUp(target, { log, signal });
    return;
  }
  const state = await migrationState(target, { log, signal });
  requireUsable(state);
  if (state.version !== state.latest) {
    throw new Fault(
      "failed_precondition",
      `Cannot use the database: it is at version ${state.version} and this memoh needs ${state.latest}`,
      { hint: "Run `memoh migrate up`, or allow the host to migrate at start" },
    );
  }
}

class PgStore implements Store {
  readonly bots: PgBots;
  readonly workspaces: PgWorkspaces;
  readonly intents: PgIntents;
  readonly tokens: PgTokens;
  readonly events: PgEvents;
  readonly settings: PgSettings;
  readonly #database: Database;

  constructor(database: Database, namespace: string) {
    this.#database = database;
    this.bots = new PgBots(database);
    this.workspaces = new PgWorkspaces(database, namespace);
    this.intents = new PgIntents(database);
    this.tokens = new PgTokens(database);
    this.events = new PgEvents(database);
    this.settings = new PgSettings(database);
  }

  async ensureUser(user: { id: string; name: string; role: Role }, wait: Wait = {}): Promise<void> {
    await ensureUser(this.#database, user, wait);
  }

  async ping(wait: Wait = {}): Promise<void> {
    await this.#database.query({ doing: "reach the database", signal: wait.signal }, (sql) => sql`select 1`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database[Symbol.asyncDispose]();
  }
}
