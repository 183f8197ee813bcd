// What the host remembers about itself, in Postgres.
import type { SettingStore } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Database } from "./database.ts";

export class PgSettings implements SettingStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async get(key: string, wait: Wait = {}): Promise<string | undefined> {
    const [row] = await this.#database.query(
      { doing: `read the setting ${key}`, signal: wait.signal },
      (sql) => sql<{ value: string }[]>`select value from settings where key = ${key}`,
    );
    return row?.value;
  }

  async setOnce(key: string, value: string, wait: Wait = {}): Promise<string> {
    const doing = `keep the setting ${key}`;
    // The update that changes nothing makes the value that stands come back, also when it was set in this moment.
    const [row] = await this.#database.query(
      { doing, signal: wait.signal },
      (sql) => sql<{ value: string }[]>`
        insert into settings (key, value) values (${key}, ${value})
        on conflict (key) do update set key = excluded.key
        returning value`,
    );
    if (row === undefined) throw new Fault("internal", `Cannot ${doing}: the database returned nothing`);
    return row.value;
  }
}
