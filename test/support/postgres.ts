// A real Postgres per test process, without durability, and a fresh database per test cloned from a migrated template.
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { Store } from "../../src/core/store.ts";
import { identify } from "../../src/lib/daemon.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { SerialQueue } from "../../src/lib/serial-queue.ts";
import { sleep } from "../../src/lib/signal.ts";
import { Connection } from "../../src/store/connection.ts";
import { migrateUp } from "../../src/store/migrate.ts";
import { openStore, type StoreOptions } from "../../src/store/open-store.ts";
import {
  findPrivatePostgres,
  openPrivatePostgres,
  type PrivatePostgres,
} from "../../src/store/private-postgres.ts";
import { errorCodeOf } from "../../src/store/sqlstate.ts";
import type { DatabaseTarget } from "../../src/store/target.ts";

const PREFIX = "memoh-test-pg-";
const TEMPLATE = "memoh_template";
/** Enough for every pool of a test file at once. */
const MAX_CONNECTIONS = "80";

/** Durability costs seconds and a test cluster has nothing to lose. */
export const FAST_SETTINGS: Readonly<Record<string, string>> = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  max_connections: MAX_CONNECTIONS,
};

/** A database of one test; disposing drops it and whoever is connected. */
export interface TestDatabase extends AsyncDisposable {
  readonly target: DatabaseTarget;
}

interface Cluster {
  readonly directory: string;
  readonly postgres: PrivatePostgres;
}

let cluster: Promise<Cluster> | undefined;
let template: Promise<void> | undefined;
let count = 0;
/** A template can be cloned by one at a time. */
const cloning = new SerialQueue();

after(async () => {
  if (cluster === undefined) return;
  const { directory, postgres } = await cluster;
  await postgres.stop();
  await rm(directory, { recursive: true, force: true });
});

/** A database with the schema of this program, empty. */
export async function freshDatabase(): Promise<TestDatabase> {
  await (template ??= makeTemplate());
  return await create(`template ${TEMPLATE}`);
}

/** A database without anything in it. */
export async function emptyDatabase(): Promise<TestDatabase> {
  return await create("");
}

/** A store over a fresh database. */
export async function freshStore(
  options: Partial<StoreOptions> = {},
): Promise<{ store: Store; target: DatabaseTarget } & AsyncDisposable> {
  const database = await freshDatabase();
  const store = await openStore({
    database: database.target,
    namespace: "memoh-test",
    migrate: false,
    log: silentLogger(),
    ...options,
  });
  return {
    store,
    target: database.target,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

/** Runs statements on a connection of their own and returns the rows of the last. */
export async function execute<R extends object>(target: DatabaseTarget, statements: string): Promise<R[]> {
  await using connection = await Connection.open(target, { statementTimeoutMs: 30_000 });
  const result = await connection.run((sql) => sql.unsafe<(R & Iterable<R>)[]>(statements));
  return [...result];
}

async function create(clause: string): Promise<TestDatabase> {
  const { target } = (await (cluster ??= startCluster())).postgres;
  const database = `test_${++count}`;
  await cloning.run("clone", async () => {
    await whileInUse(async () => await execute(target, `create database ${database} ${clause}`));
  });
  return {
    target: { ...target, database },
    [Symbol.asyncDispose]: async () => {
      await execute(target, `drop database ${database} with (force)`);
    },
  };
}

async function makeTemplate(): Promise<void> {
  const { target } = (await (cluster ??= startCluster())).postgres;
  await execute(target, `create database ${TEMPLATE}`);
  await migrateUp({ ...target, database: TEMPLATE });
}

/** A backend that just said goodbye still counts as a user of its database for a moment. */
async function whileInUse(work: () => Promise<unknown>): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await work();
      return;
    } catch (error) {
      if (errorCodeOf(error) !== "55006" || tries === 200) throw error;
      await sleep(10);
    }
  }
}

async function startCluster(): Promise<Cluster> {
  await sweepAbandoned();
  const directory = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  const postgres = await openPrivatePostgres({
    dataDir: directory,
    log: silentLogger(),
    settings: FAST_SETTINGS,
  });
  return { directory, postgres };
}

/** Clusters of test processes that were killed before they could stop them. */
async function sweepAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    if ((await identify(Number(name.slice(PREFIX.length).split("-")[0]))) !== undefined) continue;
    const dataDir = join(tmpdir(), name);
    await (await findPrivatePostgres({ dataDir }))?.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}
