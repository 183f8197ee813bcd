// Lifecycle events in Postgres; they outlive container and bot.
import type { EventStore, LifecycleEvent } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { cleanJson } from "./clean-json.ts";
import type { Database } from "./database.ts";
import { isRowId } from "./row-ids.ts";

export class PgEvents implements EventStore {
  readonly #database: Database;
  #lastNano = 0n;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(
    event: { botId: string; containerId: string; type: string; payload: object },
    wait: Wait = {},
  ): Promise<void> {
    const { botId, containerId, type } = event;
    const payload = JSON.stringify(cleanJson(event.payload));
    await this.#database.query(
      { doing: `record the event ${type}`, signal: wait.signal },
      (sql) => sql`
        insert into lifecycle_events (id, bot_id, container_id, event_type, payload)
        values (${this.#nextId(containerId)}, ${botId}, ${containerId}, ${type}, ${payload}::text::jsonb)`,
    );
  }

  async list(botId: string, limit: number, wait: Wait = {}): Promise<LifecycleEvent[]> {
    if (!isRowId(botId)) return [];
    return await this.#database.query(
      { doing: "list events", signal: wait.signal },
      (sql) => sql<LifecycleEvent[]>`
        select id, bot_id, container_id, event_type as type, payload, created_at as at
        from lifecycle_events where bot_id = ${botId} order by seq desc limit ${limit}`,
    );
  }

  /** The original's pattern, container id and nanoseconds; two of one moment differ by one. */
  #nextId(containerId: string): string {
    const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
    this.#lastNano = now > this.#lastNano ? now : this.#lastNano + 1n;
    return `${containerId}-${this.#lastNano}`;
  }
}
