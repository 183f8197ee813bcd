// API tokens in Postgres, by hash only.
import type { Role } from "../core/access.ts";
import type { TokenRecord, TokenStore } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Sql } from "./connection.ts";
import type { Database } from "./database.ts";
import { isRowId } from "./row-ids.ts";
import { userKey } from "./users.ts";

interface TokenRow {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly botIds: string[];
  readonly userId: string;
  readonly createdAt: Date;
  readonly lastUsedAt: Date | null;
}

const columns = (sql: Sql) => sql`
  tokens.id, tokens.name, tokens.role, tokens.created_at, tokens.last_used_at,
  (select coalesce(json_agg(bot_id order by bot_id), '[]') from token_bots where token_id = tokens.id) as bot_ids,
  (select coalesce(users.external_id, users.id::text) from users where users.id = tokens.user_id) as user_id`;

export class PgTokens implements TokenStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async create(
    token: { name: string; role: Role; botIds: readonly string[]; userId: string; hash: Buffer },
    wait: Wait = {},
  ): Promise<TokenRecord> {
    const doing = `create the token ${token.name}`;
    if (token.hash.length !== 32) {
      throw new Fault("invalid_argument", `Cannot ${doing}: its hash is not 32 bytes of SHA-256`);
    }
    const botIds = [...new Set(token.botIds)].sort();
    const conflicts = { token_bots_bot_id_fkey: "it names a bot that does not exist" };
    const [row] = await this.#database.query(
      { doing, conflicts, signal: wait.signal },
      (sql) => sql<Omit<TokenRow, "botIds" | "userId">[]>`
        with made as (
          insert into tokens (name, role, user_id, hash)
          select ${token.name}, ${token.role}, owner.id, ${token.hash} from ${userKey(sql, token.userId)} as owner
          returning id, name, role, created_at, last_used_at
        ), named as (
          insert into token_bots (token_id, bot_id)
          select made.id, bot_id::uuid from made, jsonb_array_elements_text(${sql.json(botIds)}) as bot_id
        )
        select * from made`,
    );
    if (row === undefined) {
      throw new Fault("failed_precondition", `Cannot ${doing}: ${token.userId} is not a known user`);
    }
    return { ...row, botIds, userId: token.userId, lastUsedAt: undefined };
  }

  async findByHash(hash: Buffer, wait: Wait = {}): Promise<TokenRecord | undefined> {
    // Use is noted to the minute: a write per request would cost more than it tells.
    const [row] = await this.#database.query(
      { doing: "look up a token", signal: wait.signal },
      (sql) => sql<TokenRow[]>`
        with used as (
          update tokens set last_used_at = now()
          where hash = ${hash} and (last_used_at is null or last_used_at < now() - interval '1 minute')
        )
        select ${columns(sql)} from tokens where hash = ${hash}`,
    );
    return row === undefined ? undefined : recordOf(row);
  }

  async list(wait: Wait = {}): Promise<TokenRecord[]> {
    const rows = await this.#database.query(
      { doing: "list tokens", signal: wait.signal },
      (sql) => sql<TokenRow[]>`select ${columns(sql)} from tokens order by created_at, id`,
    );
    return rows.map(recordOf);
  }

  async delete(id: string, wait: Wait = {}): Promise<boolean> {
    if (!isRowId(id)) return false;
    const rows = await this.#database.query(
      { doing: "delete a token", signal: wait.signal },
      (sql) => sql<{ id: string }[]>`delete from tokens where id = ${id} returning id`,
    );
    return rows.length > 0;
  }
}

function recordOf(row: TokenRow): TokenRecord {
  return { ...row, lastUsedAt: row.lastUsedAt ?? undefined };
}
