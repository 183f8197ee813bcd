// Bots in Postgres.

import type { BotRecord } from "../core/bot.ts";
import { isBotId } from "../core/bot-id.ts";
import type { BotStore } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Sql } from "./connection.ts";
import type { Database } from "./database.ts";
import { storedError } from "./last-error.ts";
import { userKey } from "./users.ts";

/** Columns of a BotRecord. */
const columns = (sql: Sql) => sql`
  bots.id, bots.name, bots.created_at,
  (select coalesce(users.external_id, users.id::text) from users where users.id = bots.owner_user_id) as owner_id`;

export class PgBots implements BotStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async create(bot: { id: string; name: string; ownerId: string }, wait: Wait = {}): Promise<BotRecord> {
    const doing = `create the bot ${bot.name}`;
    const conflicts = {
      bots_name_unique: "the name is taken",
      bots_pkey: "a bot with its id exists already",
    };
    const [row] = await this.#database.query(
      { doing, conflicts, signal: wait.signal },
      (sql) => sql<BotRecord[]>`
        insert into bots (id, name, display_name, owner_user_id)
        select ${bot.id}, ${bot.name}, ${bot.name}, owner.id from ${userKey(sql, bot.ownerId)} as owner
        returning ${columns(sql)}`,
    );
    if (row === undefined) {
      throw new Fault("failed_precondition", `Cannot ${doing}: its owner ${bot.ownerId} is not a known user`);
    }
    return row;
  }

  async get(id: string, wait: Wait = {}): Promise<BotRecord | undefined> {
    if (!isBotId(id)) return undefined;
    const [row] = await this.#database.query(
      { doing: "read a bot", signal: wait.signal },
      (sql) => sql<BotRecord[]>`select ${columns(sql)} from bots where id = ${id}`,
    );
    return row;
  }

  async getByName(name: string, wait: Wait = {}): Promise<BotRecord | undefined> {
    if (name.includes("\0")) return undefined;
    const [row] = await this.#database.query(
      { doing: "read a bot", signal: wait.signal },
      (sql) => sql<BotRecord[]>`select ${columns(sql)} from bots where name = ${name}`,
    );
    return row;
  }

  async list(wait: Wait = {}): Promise<BotRecord[]> {
    return await this.#database.query(
      { doing: "list bots", signal: wait.signal },
      (sql) => sql<BotRecord[]>`select ${columns(sql)} from bots order by name collate "C"`,
    );
  }

  async delete(id: string, wait: Wait = {}): Promise<void> {
    if (!isBotId(id)) return;
    // What was asked of the bot and can no longer be done is failed with it; its own deletion is still to be finished.
    const gone = storedError({
      code: "not_found",
      message: "The bot was deleted before this was done",
      step: "",
      at: new Date(),
      retryable: false,
    });
    await this.#database.query(
      { doing: "delete a bot", signal: wait.signal },
      (sql) => sql`
        with pointless as (
          update intents set state = 'failed', error = ${sql.json({ ...gone })}, finished_at = now()
          where bot_id = ${id} and state in ('pending', 'running') and kind <> 'delete_bot'
        )
        delete from bots where id = ${id}`,
    );
  }
}
