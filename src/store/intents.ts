// Intents and their journal in Postgres.
import type { LastError } from "../core/bot.ts";
import type { Intent, IntentKind, IntentState } from "../core/intent.ts";
import type { IntentStore } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Sql, Statement } from "./connection.ts";
import type { Database } from "./database.ts";
import { lastErrorOf, type StoredError, storedError } from "./last-error.ts";
import { isRowId } from "./row-ids.ts";

interface IntentRow {
  readonly id: string;
  readonly botId: string;
  readonly kind: IntentKind;
  readonly state: IntentState;
  readonly stepsDone: string[];
  readonly requestedBy: string;
  readonly idempotencyKey: string | null;
  readonly error: StoredError | null;
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
}

const columns = (sql: Sql) => sql`
  id, bot_id, kind, state, requested_by, idempotency_key, error, created_at, finished_at,
  (select coalesce(json_agg(step order by intent_steps.seq), '[]') from intent_steps where intent_id = intents.id)
    as steps_done`;

export class PgIntents implements IntentStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async record(
    intent: { botId: string; kind: IntentKind; requestedBy: string; idempotencyKey?: string | undefined },
    wait: Wait = {},
  ): Promise<Intent> {
    const { botId, kind, requestedBy, idempotencyKey: key = null } = intent;
    const doing = `record the intent ${kind}`;
    if (!isRowId(botId)) throw new Fault("not_found", `Cannot ${doing}: there is no bot ${botId}`);
    const inserted = await this.#rows(
      doing,
      wait,
      (sql) => sql<IntentRow[]>`
        insert into intents (bot_id, kind, requested_by, idempotency_key)
        select id, ${kind}, ${requestedBy}, ${key} from bots where id = ${botId}
        on conflict (bot_id, idempotency_key) do nothing
        returning ${columns(sql)}`,
    );
    // The insert has waited for a concurrent twin, which is there now; and a deletion that is asked for again finds its
    // intent, though the bot is gone.
    const [found] =
      inserted.length > 0 || key === null
        ? inserted
        : await this.#rows(
            doing,
            wait,
            (sql) => sql<IntentRow[]>`
              select ${columns(sql)} from intents where bot_id = ${botId} and idempotency_key = ${key}`,
          );
    if (found === undefined) throw new Fault("not_found", `Cannot ${doing}: there is no bot ${botId}`);
    if (found.kind !== kind) {
      throw new Fault("invalid_argument", `Cannot ${doing}: its idempotency key was used for ${found.kind}`, {
        hint: "Use a fresh idempotency key for each thing you ask for",
        http: 422,
      });
    }
    return found;
  }

  async get(id: string, wait: Wait = {}): Promise<Intent | undefined> {
    if (!isRowId(id)) return undefined;
    const [found] = await this.#rows(
      "read an intent",
      wait,
      (sql) => sql<IntentRow[]>`select ${columns(sql)} from intents where id = ${id}`,
    );
    return found;
  }

  async open(wait: Wait = {}): Promise<Intent[]> {
    return await this.#rows(
      "list open intents",
      wait,
      (sql) => sql<IntentRow[]>`
        select ${columns(sql)} from intents where state in ('pending', 'running') order by intents.seq`,
    );
  }

  async listByBot(botId: string, limit: number, wait: Wait = {}): Promise<Intent[]> {
    if (!isRowId(botId)) return [];
    return await this.#rows(
      "list intents",
      wait,
      (sql) => sql<IntentRow[]>`
        select ${columns(sql)} from intents where bot_id = ${botId} order by intents.seq desc limit ${limit}`,
    );
  }

  async begin(id: string, wait: Wait = {}): Promise<void> {
    const intent = await this.#changed(
      id,
      "begin an intent",
      wait,
      (sql) => sql<IntentRow[]>`
        update intents set
          state = case when state = 'pending' then 'running' else state end,
          started_at = coalesce(started_at, now())
        where id = ${id} returning ${columns(sql)}`,
    );
    if (intent.state !== "running") {
      throw new Fault("failed_precondition", `Cannot begin an intent: it is ${intent.state} already`);
    }
  }

  async stepDone(id: string, step: string, wait: Wait = {}): Promise<void> {
    await this.#changed(
      id,
      `journal the step ${step}`,
      wait,
      (sql) => sql<IntentRow[]>`
        with journal as (
          insert into intent_steps (intent_id, step) select id, ${step} from intents where id = ${id}
          on conflict do nothing
        )
        select ${columns(sql)} from intents where id = ${id}`,
    );
  }

  async finish(id: string, error: LastError | undefined, wait: Wait = {}): Promise<void> {
    // The first outcome stands: a host that comes back late does not rewrite history.
    await this.#changed(id, "finish an intent", wait, (sql) => {
      const stored = error === undefined ? null : sql.json({ ...storedError(error) });
      const state = error === undefined ? "done" : "failed";
      return sql<IntentRow[]>`
        update intents set
          state = case when finished_at is null then ${state} else state end,
          error = case when finished_at is null then ${stored}::jsonb else error end,
          finished_at = coalesce(finished_at, now())
        where id = ${id} returning ${columns(sql)}`;
    });
  }

  async #rows(doing: string, wait: Wait, build: (sql: Sql) => Statement<IntentRow[]>): Promise<Intent[]> {
    const rows = await this.#database.query({ doing, signal: wait.signal }, build);
    return rows.map((row) => ({
      ...row,
      idempotencyKey: row.idempotencyKey ?? undefined,
      error: lastErrorOf(row.error),
      finishedAt: row.finishedAt ?? undefined,
    }));
  }

  async #changed(
    id: string,
    doing: string,
    wait: Wait,
    build: (sql: Sql) => Statement<IntentRow[]>,
  ): Promise<Intent> {
    const [intent] = isRowId(id) ? await this.#rows(doing, wait, build) : [];
    if (intent === undefined) throw new Fault("not_found", `Cannot ${doing}: there is no intent ${id}`);
    return intent;
  }
}
