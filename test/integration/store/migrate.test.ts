// The migration runner on a real Postgres.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MIGRATIONS, type Migration } from "../../../src/gen/migrations.ts";
import { forceVersion, migrateDown, migrateUp, migrationState } from "../../../src/store/migrate.ts";
import type { DatabaseTarget } from "../../../src/store/target.ts";
import { isFault } from "../../support/fault.ts";
import { emptyDatabase, execute, freshDatabase, freshStore } from "../../support/postgres.ts";

const LATEST = MIGRATIONS.at(-1)?.version ?? 0;

/** Small migrations whose effect is one table each. */
const TOY: readonly Migration[] = [1, 2, 3].map((version) => ({
  version,
  name: `toy_${version}`,
  up: `create table toy_${version} (n int)`,
  down: `drop table toy_${version} -- a comment at the end`,
}));

async function tables(target: DatabaseTarget): Promise<string[]> {
  const rows = await execute<{ name: string }>(
    target,
    "select tablename as name from pg_tables where schemaname = 'public' and tablename <> 'memoh_migrations' order by 1",
  );
  return rows.map(({ name }) => name);
}

/** Everything the schema consists of, in words that can be compared. */
async function schema(target: DatabaseTarget): Promise<string[]> {
  const rows = await execute<{ line: string }>(
    target,
    `select format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) as line
       from information_schema.columns where table_schema = 'public'
     union all select indexdef from pg_indexes where schemaname = 'public'
     union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint
       where connamespace = 'public'::regnamespace
     order by 1`,
  );
  return rows.map(({ line }) => line.replace(" NOT VALID", ""));
}

describe("migrating up", () => {
  it("takes an empty database to the latest version, and then has nothing to do", async () => {
    await using database = await emptyDatabase();
    const first = await migrateUp(database.target);
    assert.deepEqual([first.from, first.to], [0, LATEST]);
    assert.deepEqual(
      first.steps.map(({ version, direction }) => [version, direction]),
      MIGRATIONS.map(({ version }) => [version, "up"]),
    );
    const second = await migrateUp(database.target);
    assert.deepEqual([second.from, second.to, second.steps], [LATEST, LATEST, []]);
  });

  it("stops at the version asked for", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { to: 1 });
    const hostPath = "select 1 as one from information_schema.columns where column_name = 'host_path'";
    assert.equal((await execute(database.target, hostPath)).length, 1);
    await migrateUp(database.target, { to: 22 });
    assert.equal((await execute(database.target, hostPath)).length, 0);
    await assert.rejects(
      migrateUp(database.target, { to: 5 }),
      isFault("invalid_argument", /no such version/),
    );
  });

  it("is done once, whole, by 20 runners at once", async () => {
    await using database = await emptyDatabase();
    const results = await Promise.all(
      Array.from({ length: 20 }, async () => await migrateUp(database.target)),
    );
    const steps = results.flatMap((result) => result.steps).map(({ version }) => version);
    assert.deepEqual(
      steps.sort((a, b) => a - b),
      MIGRATIONS.map(({ version }) => version),
    );
    assert.ok(results.every(({ to }) => to === LATEST));
    await using reference = await freshDatabase();
    assert.deepEqual(await schema(database.target), await schema(reference.target));
  });

  it("leaves the database as it was before a file that fails in the middle", async () => {
    await using database = await emptyDatabase();
    const broken: Migration = {
      version: 2,
      name: "broken",
      up: "create table half (n int); select nonsense();",
      down: "",
    };
    const migrations = [...TOY.slice(0, 1), broken];
    await assert.rejects(
      migrateUp(database.target, { migrations }),
      isFault("internal", /migrate up 0002_broken: .*nonsense/),
    );
    assert.deepEqual(await tables(database.target), ["toy_1"]);
    assert.equal((await migrationState(database.target, { migrations })).version, 1);
    assert.equal((await migrateUp(database.target, { migrations: TOY })).to, 3);
  });

  it("leaves nothing of a file whose runner is cancelled, and heeds the signal at once", async () => {
    await using database = await emptyDatabase();
    const slow: Migration = {
      version: 1,
      name: "slow",
      up: "create table slow (); select pg_sleep(60)",
      down: "",
    };
    const controller = new AbortController();
    const running = migrateUp(database.target, { migrations: [slow], signal: controller.signal });
    await untilActive(database.target, "pg_sleep(60)");
    controller.abort();
    await assert.rejects(running, isFault("cancelled", /./));
    assert.deepEqual(await tables(database.target), []);
    assert.equal((await migrateUp(database.target, { migrations: TOY })).to, 3);
  });

  it("leaves nothing of a file whose connection is cut", async () => {
    await using database = await emptyDatabase();
    const slow: Migration = {
      version: 1,
      name: "slow",
      up: "create table slow (); select pg_sleep(60)",
      down: "",
    };
    const running = migrateUp(database.target, { migrations: [slow] });
    const rejected = assert.rejects(running, isFault("unavailable", /migrate up 0001_slow/));
    await untilActive(database.target, "pg_sleep(60)");
    await execute(
      database.target,
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()`,
    );
    await rejected;
    assert.deepEqual(await tables(database.target), []);
  });

  it("refuses a database newer than the program, and only `state` and `force` still work on it", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { migrations: TOY });
    const migrations = TOY.slice(0, 2);
    const newer = isFault("failed_precondition", /newer than this memoh.*0003_toy_3/);
    await assert.rejects(migrateUp(database.target, { migrations }), newer);
    await assert.rejects(migrateDown(database.target, { migrations }), newer);
    const state = await migrationState(database.target, { migrations });
    assert.deepEqual([state.version, state.latest, state.entries.at(-1)?.status], [3, 2, "unknown"]);
    assert.equal((await forceVersion(database.target, 2, { migrations })).version, 2);
  });

  it("refuses a database that skipped a file", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { migrations: TOY.filter(({ version }) => version !== 2) });
    await assert.rejects(
      migrateUp(database.target, { migrations: TOY }),
      isFault("failed_precondition", /lacks 0002_toy_2/),
    );
  });

  it("reports an applied file that was edited since", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { migrations: TOY });
    const migrations = TOY.map((one) => (one.version === 2 ? { ...one, up: `${one.up} -- edited` } : one));
    assert.deepEqual((await migrateUp(database.target, { migrations })).changed, ["0002_toy_2"]);
    const state = await migrationState(database.target, { migrations });
    assert.deepEqual(
      state.entries.map(({ status }) => status),
      ["applied", "changed", "applied"],
    );
  });

  it("refuses the database of the original instead of failing in the middle", async () => {
    await using database = await emptyDatabase();
    await execute(
      database.target,
      "create table schema_migrations (version bigint, dirty bool); create table containers ()",
    );
    await assert.rejects(migrateUp(database.target), isFault("failed_precondition", /original/));
  });
});

describe("migrating down", () => {
  it("takes back the newest file only, unless told how far", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { migrations: TOY });
    const one = await migrateDown(database.target, { migrations: TOY });
    assert.deepEqual([one.from, one.to], [3, 2]);
    assert.deepEqual(await tables(database.target), ["toy_1", "toy_2"]);
    await migrateDown(database.target, { migrations: TOY, to: 0 });
    assert.deepEqual(await tables(database.target), []);
    assert.deepEqual((await migrateDown(database.target, { migrations: TOY })).steps, []);
  });

  it("and up again by runners at the same time ends at a whole version", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { migrations: TOY });
    await Promise.all([
      ...Array.from({ length: 5 }, async () => await migrateUp(database.target, { migrations: TOY, to: 3 })),
      ...Array.from(
        { length: 5 },
        async () => await migrateDown(database.target, { migrations: TOY, to: 1 }),
      ),
    ]);
    const { version } = await migrationState(database.target, { migrations: TOY });
    assert.deepEqual(
      await tables(database.target),
      TOY.filter((one) => one.version <= version).map(({ name }) => name),
    );
  });

  it("to nothing leaves nothing, and up again gives the same schema", async () => {
    await using database = await freshDatabase();
    const before = await schema(database.target);
    await migrateDown(database.target, { to: 0 });
    assert.deepEqual(await tables(database.target), []);
    await migrateUp(database.target);
    assert.deepEqual(await schema(database.target), before);
  });
});

describe("a filled database", () => {
  it("keeps what the original's tables hold through down and up, events of deleted bots included", async () => {
    await using rig = await freshStore();
    const { store, target } = rig;
    const kept = crypto.randomUUID();
    const gone = crypto.randomUUID();
    await store.ensureUser({ id: "admin", name: "admin", role: "admin" });
    for (const [id, name] of [
      [kept, "a-rather-long-name--with-two-dashes-and-63-letters-in-all-of-it"],
      [gone, "gone"],
    ] as const) {
      await store.bots.create({ id, name, ownerId: "admin" });
      await store.workspaces.create({
        botId: id,
        containerId: `odd-${name}`,
        image: "i",
        limits: {},
        desired: "running",
      });
      await store.workspaces.observe(id, { phase: "running" });
      await store.events.add({ botId: id, containerId: `odd-${name}`, type: "start", payload: { n: 1 } });
    }
    await execute(
      target,
      `insert into snapshots (id, container_id, runtime_snapshot_name, snapshotter, source)
         select gen_random_uuid(), container_id, 's', 'overlayfs', 'manual' from containers;
       insert into container_versions (container_id, snapshot_id, version) select container_id, id, 1 from snapshots;`,
    );
    await store.bots.delete(gone);
    const look = async () => ({
      bots: (await store.bots.list()).map(({ id, name }) => [id, name]),
      containers: await execute(
        target,
        "select bot_id, container_id, status, last_started_at from containers",
      ),
      snapshots: await execute(target, "select * from snapshots"),
      versions: await execute(target, "select * from container_versions"),
      events: [await store.events.list(kept, 9), await store.events.list(gone, 9)],
    });
    const before = await look();
    assert.equal(before.events[1]?.length, 1);
    await migrateDown(target, { to: 1 });
    await migrateUp(target);
    assert.deepEqual(await look(), before);
  });

  it("of the original gets unique bot names from display names", async () => {
    await using database = await emptyDatabase();
    await migrateUp(database.target, { to: 22 });
    await execute(
      database.target,
      `with owner as (insert into users (name) values ('u') returning id)
       insert into bots (owner_user_id, display_name)
       select id, name from owner, unnest(array['My Bot!', 'twin', 'Twin', '机器人', null]) as name`,
    );
    await migrateUp(database.target);
    const rows = await execute<{ name: string }>(
      database.target,
      'select name from bots order by name collate "C"',
    );
    const names = rows.map(({ name }) => name);
    assert.equal(new Set(names).size, 5);
    assert.ok(names.includes("my-bot"));
    assert.ok(
      names.every((name) => /^[a-z0-9][a-z0-9-]{0,62}$/.test(name) && !name.endsWith("-")),
      names.join(),
    );
    assert.equal(names.filter((name) => /^twin-[0-9a-f]{32}$/.test(name)).length, 2);
  });
});

describe("force", () => {
  it("sets the version without running anything, and counts edited files as they are now", async () => {
    await using database = await emptyDatabase();
    const forced = await forceVersion(database.target, 2, { migrations: TOY });
    assert.deepEqual(
      forced.entries.map(({ status }) => status),
      ["applied", "applied", "pending"],
    );
    assert.deepEqual(await tables(database.target), []);
    const edited = TOY.map((one) => ({ ...one, up: `${one.up};` }));
    assert.equal(
      (await migrationState(database.target, { migrations: edited })).entries[0]?.status,
      "changed",
    );
    const again = await forceVersion(database.target, 1, { migrations: edited });
    assert.deepEqual(
      again.entries.map(({ status }) => status),
      ["applied", "pending", "pending"],
    );
    assert.equal((await forceVersion(database.target, 0, { migrations: TOY })).version, 0);
    await assert.rejects(
      forceVersion(database.target, 9, { migrations: TOY }),
      isFault("invalid_argument", /no such version/),
    );
  });
});

async function untilActive(target: DatabaseTarget, words: string): Promise<void> {
  for (;;) {
    const rows = await execute(
      target,
      `select 1 as one from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
         and state = 'active' and query like '%${words}%'`,
    );
    if (rows.length > 0) return;
  }
}
