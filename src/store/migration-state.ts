// Where a database stands: the version table beside the migrations this program knows.
import { createHash } from "node:crypto";
import type { Migration } from "../gen/migrations.ts";
import { Fault } from "../lib/fault.ts";
import type { Connection } from "./connection.ts";

/** Postgres that has everything the migrations use. */
const OLDEST_SERVER = 130_000;

export type MigrationStatus = "applied" | "changed" | "pending" | "missing" | "unknown";

/**
 * One migration beside the database: `changed` was edited after it was applied, `missing` was skipped, `unknown` belongs
 * to a newer memoh.
 */
export interface MigrationEntry {
  readonly version: number;
  readonly name: string;
  readonly status: MigrationStatus;
  readonly appliedAt: Date | undefined;
}

/** Where a database stands. */
export interface SchemaState {
  /** Highest applied version; 0 is an empty database. */
  readonly version: number;
  /** Highest version this program knows. */
  readonly latest: number;
  readonly entries: readonly MigrationEntry[];
}

interface AppliedRow {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
  readonly appliedAt: Date;
}

/** What a migration's text is recognised by later. */
export function checksumOf(migration: Migration): string {
  return createHash("sha256").update(migration.up).update("\0").update(migration.down).digest("hex");
}

/** Reads the state and changes nothing. @throws Fault failed_precondition for a database that is not memoh's */
export async function readState(
  connection: Connection,
  migrations: readonly Migration[],
  signal: AbortSignal | undefined,
): Promise<SchemaState> {
  const [server] = await connection.run(
    (sql) => sql<{ number: number; ours: boolean; original: boolean }[]>`
      select current_setting('server_version_num')::int as number,
        to_regclass('memoh_migrations') is not null as ours,
        to_regclass('schema_migrations') is not null and to_regclass('containers') is not null as original`,
    signal,
  );
  if (server === undefined || server.number < OLDEST_SERVER) {
    throw new Fault("failed_precondition", "Cannot use the database: its Postgres is older than 13", {
      hint: "Use Postgres 13 or newer",
    });
  }
  if (!server.ours && server.original) {
    throw new Fault(
      "failed_precondition",
      "Cannot use the database: it belongs to the original and is not adopted",
      {
        hint: "Give memoh a database of its own",
      },
    );
  }
  const applied = server.ours
    ? await connection.run(
        (sql) => sql<AppliedRow[]>`
          select version, name, checksum, applied_at from memoh_migrations order by version`,
        signal,
      )
    : [];
  return compare(applied, migrations);
}

function compare(applied: readonly AppliedRow[], migrations: readonly Migration[]): SchemaState {
  const version = applied.at(-1)?.version ?? 0;
  const known = migrations.map((migration): MigrationEntry => {
    const row = applied.find((candidate) => candidate.version === migration.version);
    const { name } = migration;
    if (row === undefined) {
      const status = migration.version < version ? "missing" : "pending";
      return { version: migration.version, name, status, appliedAt: undefined };
    }
    const status = row.checksum === checksumOf(migration) ? "applied" : "changed";
    return { version: row.version, name, status, appliedAt: row.appliedAt };
  });
  const unknown = applied
    .filter((row) => !migrations.some((migration) => migration.version === row.version))
    .map((row): MigrationEntry => ({ ...pick(row), status: "unknown" }));
  const entries = [...known, ...unknown].sort((a, b) => a.version - b.version);
  return { version, latest: migrations.at(-1)?.version ?? 0, entries };
}

function pick({ version, name, appliedAt }: AppliedRow) {
  return { version, name, appliedAt };
}

/** @throws Fault failed_precondition when this program must not touch the database's schema */
export function requireUsable(state: SchemaState): void {
  const unknown = state.entries.filter((entry) => entry.status === "unknown").map(labelOf);
  if (unknown.length > 0) {
    throw new Fault(
      "failed_precondition",
      `Cannot use the database: it is newer than this memoh, which does not know ${unknown.join(", ")}`,
      { hint: "Use the newer memoh, or go back with its `memoh migrate down`" },
    );
  }
  const missing = state.entries.filter((entry) => entry.status === "missing").map(labelOf);
  if (missing.length > 0) {
    throw new Fault(
      "failed_precondition",
      `Cannot use the database: it is at ${state.version} but lacks ${missing.join(", ")}`,
      { hint: "Apply what is missing by hand, then run `memoh migrate force` with the version it is at" },
    );
  }
}

/** `0023_names`, as the file is called. */
export function labelOf({ version, name }: { readonly version: number; readonly name: string }): string {
  return `${String(version).padStart(4, "0")}_${name}`;
}
