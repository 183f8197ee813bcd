// Users: minimal, and known by a UUID or by the id another system gave them (`admin`, the subject of a JWT).
import type { Role } from "../core/access.ts";
import type { Wait } from "../core/workspace.ts";
import type { Sql, Statement } from "./connection.ts";
import type { Database } from "./database.ts";
import { isRowId } from "./row-ids.ts";

/** Fragment: the row id of the user with this id, or null. */
export function userKey(sql: Sql, id: string): Statement<{ id: string }[]> {
  return isRowId(id)
    ? sql<{ id: string }[]>`(select id from users where id = ${id})`
    : sql<{ id: string }[]>`(select id from users where external_id = ${id})`;
}

/** Makes the row exist; one that does is left as it is. */
export async function ensureUser(
  database: Database,
  user: { readonly id: string; readonly name: string; readonly role: Role },
  wait: Wait,
): Promise<void> {
  const { id, name, role } = user;
  await database.query({ doing: `record the user ${id}`, signal: wait.signal }, (sql) =>
    isRowId(id)
      ? sql`insert into users (id, name, role) values (${id}, ${name}, ${role}) on conflict do nothing`
      : sql`insert into users (external_id, name, role) values (${id}, ${name}, ${role}) on conflict do nothing`,
  );
}
