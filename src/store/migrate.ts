// The migration runner: one transaction per file, safe with any number of runners at once, never half applied.
import { MIGRATIONS, type Migration } from "../gen/migrations.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { Connection } from "./connection.ts";
import { checksumOf, labelOf, readState, requireUsable, type SchemaState } from "./migration-state.ts";
import { errorCodeOf, faultFromDatabase } from "./sqlstate.ts";
import type { DatabaseTarget } from "./target.ts";

export interface MigrateOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log?: Logger | undefined;
  /** Those of this program when absent. */
  readonly migrations?: readonly Migration[] | undefined;
}

export interface MigrationStep {
  readonly version: number;
  readonly name: string;
  readonly direction: "up" | "down";
  readonly ms: number;
}

export interface MigrationResult {
  readonly from: number;
  readonly to: number;
  /** What this runner did; empty when there was nothing to do or another runner did it. */
  readonly steps: readonly MigrationStep[];
  /** Names of applied files that were edited since, such as `0023_names`. */
  readonly changed: readonly string[];
}

/** Names the one lock of all runners on a database: "memoh" and "migr" in ASCII, folded to 31 bits. */
const LOCK = "select pg_advisory_xact_lock(1835363695, 1835624306);";

/** SQLSTATE of our own: the database is no longer where this runner saw it. */
const MOVED = "MM001";

const VERSION_TABLE = `
create table if not exists memoh_migrations (
  version integer primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now()
);`;

/**
 * Applies what is pending, up to and including `to`.
 * @throws Fault failed_precondition for a database newer than this program; what a file does wrong otherwise, with the
 * database as it was before that file
 */
export async function migrateUp(
  target: DatabaseTarget,
  options: MigrateOptions & { readonly to?: number | undefined } = {},
): Promise<MigrationResult> {
  const migrations = options.migrations ?? MIGRATIONS;
  const goal = options.to ?? migrations.at(-1)?.version ?? 0;
  requireKnown(goal, migrations);
  return await converge(target, options, (state) => {
    const next = migrations.find(
      (candidate) => candidate.version > state.version && candidate.version <= goal,
    );
    return next === undefined ? undefined : { migration: next, direction: "up", leavesAt: next.version };
  });
}

/** Takes back what is above `to`; the newest one only when `to` is absent. Its data goes with it. */
export async function migrateDown(
  target: DatabaseTarget,
  options: MigrateOptions & { readonly to?: number | undefined } = {},
): Promise<MigrationResult> {
  const migrations = options.migrations ?? MIGRATIONS;
  if (options.to !== undefined) requireKnown(options.to, migrations);
  let goal = options.to;
  return await converge(target, options, (state) => {
    const before = (version: number) => migrations.findLast((one) => one.version < version)?.version ?? 0;
    goal ??= before(state.version);
    const last = migrations.find((candidate) => candidate.version === state.version);
    if (last === undefined || last.version <= goal) return undefined;
    return { migration: last, direction: "down", leavesAt: before(last.version) };
  });
}

/** Where the database stands. Changes nothing, also for a database newer than this program. */
export async function migrationState(
  target: DatabaseTarget,
  options: MigrateOptions = {},
): Promise<SchemaState> {
  return await onConnection(target, options, "read the schema version", async (connection) => {
    return await readState(connection, options.migrations ?? MIGRATIONS, options.signal);
  });
}

/**
 * Declares that the database is at this version, without running anything: every file up to it counts as applied in its
 * present text, none above it does.
 * @throws Fault invalid_argument for a version that no file has (0 is the empty database)
 */
export async function forceVersion(
  target: DatabaseTarget,
  version: number,
  options: MigrateOptions = {},
): Promise<SchemaState> {
  const migrations = options.migrations ?? MIGRATIONS;
  requireKnown(version, migrations);
  const rows = migrations.filter((migration) => migration.version <= version).map(rowOf);
  const insert =
    rows.length === 0
      ? ""
      : `insert into memoh_migrations (version, name, checksum) values ${rows.join(", ")}
         on conflict (version) do update set name = excluded.name, checksum = excluded.checksum;`;
  return await onConnection(target, options, `set the schema version to ${version}`, async (connection) => {
    await connection.run(
      (sql) =>
        sql.unsafe(
          `${LOCK} ${VERSION_TABLE} delete from memoh_migrations where version > ${version}; ${insert}`,
        ),
      options.signal,
    );
    options.log?.warn({ version }, "schema version was set by force");
    return await readState(connection, migrations, options.signal);
  });
}

interface NextStep {
  readonly migration: Migration;
  readonly direction: "up" | "down";
  /** Version of the database after it. */
  readonly leavesAt: number;
}

/** Takes steps until none is left, looking at the database anew before each. */
async function converge(
  target: DatabaseTarget,
  options: MigrateOptions,
  nextOf: (state: SchemaState) => NextStep | undefined,
): Promise<MigrationResult> {
  const migrations = options.migrations ?? MIGRATIONS;
  return await onConnection(target, options, "migrate the database", async (connection) => {
    const steps: MigrationStep[] = [];
    let from: number | undefined;
    for (;;) {
      const state = await readState(connection, migrations, options.signal);
      requireUsable(state);
      from ??= state.version;
      const next = nextOf(state);
      if (next === undefined) {
        const changed = state.entries.filter((entry) => entry.status === "changed").map(labelOf);
        if (changed.length > 0) options.log?.warn({ changed }, "applied migrations were edited since");
        return { from, to: state.version, steps, changed };
      }
      const step = await take(connection, next, state.version, options);
      if (step !== undefined) steps.push(step);
    }
  });
}

/** One file as one transaction. @returns undefined when another runner moved the database first */
async function take(
  connection: Connection,
  next: NextStep,
  from: number,
  options: MigrateOptions,
): Promise<MigrationStep | undefined> {
  const { migration, direction } = next;
  const started = performance.now();
  try {
    // Statements of one simple query are one transaction, and a lost connection can end it in one way only.
    await connection.run((sql) => sql.unsafe(batch(next, from)), options.signal);
  } catch (error) {
    if (errorCodeOf(error) === MOVED) return undefined;
    throw faultFromDatabase(error, { doing: `migrate ${direction} ${labelOf(migration)}` });
  }
  const ms = Math.round(performance.now() - started);
  options.log?.info({ migration: labelOf(migration), direction, ms }, "migrated");
  return { version: migration.version, name: migration.name, direction, ms };
}

function batch({ migration, direction }: NextStep, from: number): string {
  const record =
    direction === "up"
      ? `insert into memoh_migrations (version, name, checksum) values ${rowOf(migration)};`
      : `delete from memoh_migrations where version = ${migration.version};`;
  return `${LOCK}
${from === 0 ? VERSION_TABLE : ""}
do $memoh$ begin
  if (select coalesce(max(version), 0) from memoh_migrations) <> ${from} then
    raise exception 'the schema was migrated meanwhile' using errcode = '${MOVED}';
  end if;
end $memoh$;
${migration[direction]}
;
${record}`;
}

/** A row of the version table as a literal; the name is checked where the file is embedded. */
function rowOf(migration: Migration): string {
  if (!/^\w+$/.test(migration.name)) {
    throw new Fault(
      "invalid_argument",
      `Cannot migrate: ${JSON.stringify(migration.name)} is no name of a migration`,
    );
  }
  return `(${migration.version}, '${migration.name}', '${checksumOf(migration)}')`;
}

function requireKnown(version: number, migrations: readonly Migration[]): void {
  if (version === 0 || migrations.some((migration) => migration.version === version)) return;
  throw new Fault("invalid_argument", `Cannot migrate to ${version}: there is no such version`, {
    hint: `Choose one of 0, ${migrations.map((migration) => migration.version).join(", ")}`,
  });
}

/** A connection of its own, without a limit on statements: a migration takes the time it takes. */
async function onConnection<T>(
  target: DatabaseTarget,
  options: MigrateOptions,
  doing: string,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  try {
    await using connection = await Connection.open(target, {
      signal: options.signal,
      statementTimeoutMs: 0,
      onNotice: (notice) => options.log?.debug(notice),
    });
    return await work(connection);
  } catch (error) {
    throw faultFromDatabase(error, { doing });
  }
}
