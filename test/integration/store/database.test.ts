// The pool on a real Postgres: cancelled calls, broken connections, a server that refuses us.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { createLogger, silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { Database } from "../../../src/store/database.ts";
import { openStore } from "../../../src/store/open-store.ts";
import type { DatabaseTarget } from "../../../src/store/target.ts";
import { isFault } from "../../support/fault.ts";
import { emptyDatabase, execute, freshDatabase, freshStore } from "../../support/postgres.ts";

interface One {
  readonly one: number;
}

async function one(database: Database, signal?: AbortSignal): Promise<number | undefined> {
  const rows = await database.query({ doing: "count to one", signal }, (sql) => sql<One[]>`select 1 as one`);
  return rows[0]?.one;
}

async function backends(target: DatabaseTarget, where: string): Promise<number> {
  const rows = await execute<{ n: number }>(
    target,
    `select count(*)::int as n from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and ${where}`,
  );
  return rows[0]?.n ?? 0;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(5);
}

describe("a call", { timeout: 120_000 }, () => {
  it("that is aborted while it runs rejects with the reason, and its statement ends on the server", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target, { statementTimeoutMs: 0, callTimeoutMs: 600_000 });
    const controller = new AbortController();
    const running = database.query(
      { doing: "sleep", signal: controller.signal },
      (sql) => sql<One[]>`select 1 as one from pg_sleep(600)`,
    );
    const rejected = assert.rejects(running, isFault("aborted", /enough/));
    await until(async () => (await backends(empty.target, "query like '%pg_sleep%'")) === 1);
    controller.abort(new Fault("aborted", "enough"));
    await rejected;
    await until(async () => (await backends(empty.target, "query like '%pg_sleep%'")) === 0);
    assert.equal(await one(database), 1);
  });

  it("that is aborted while it waits for a connection is never sent", async () => {
    await using empty = await emptyDatabase();
    await execute(empty.target, "create table seen (n int)");
    await using database = new Database(empty.target, { poolSize: 1 });
    const busy = database.query({ doing: "sleep" }, (sql) => sql<One[]>`select 1 as one from pg_sleep(0.3)`);
    const controller = new AbortController();
    const waiting = database.query(
      { doing: "insert", signal: controller.signal },
      (sql) => sql`insert into seen values (1)`,
    );
    const rejected = assert.rejects(waiting, isFault("cancelled"));
    controller.abort();
    await rejected;
    await busy;
    assert.equal(await one(database), 1);
    assert.deepEqual(await execute(empty.target, "select n from seen"), []);
  });

  it("with an aborted signal does nothing", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target);
    await assert.rejects(one(database, AbortSignal.abort()), isFault("cancelled"));
    assert.equal(await backends(empty.target, "true"), 0);
  });

  it("aborted again and again, at any moment, costs no place in the pool", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target, { poolSize: 2 });
    for (let round = 0; round < 40; round++) {
      const controller = new AbortController();
      const calls = Array.from({ length: 4 }, async () => await one(database, controller.signal));
      const settled = Promise.allSettled(calls);
      // From before the first connection over connecting to running: every round stops a little later.
      for (let turn = 0; turn < round; turn++) await new Promise(setImmediate);
      controller.abort();
      await settled;
    }
    assert.deepEqual(await Promise.all([one(database), one(database), one(database)]), [1, 1, 1]);
    await until(async () => (await backends(empty.target, "true")) <= 2);
  });

  it("never opens more connections than the pool has places", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target, { poolSize: 3 });
    const pids = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const rows = await database.query(
          { doing: "ask" },
          (sql) => sql<{ pid: number }[]>`select pg_backend_pid() as pid from pg_sleep(0.005)`,
        );
        return rows[0]?.pid;
      }),
    );
    assert.equal(new Set(pids).size, 3);
  });

  it("prepares its statement once per connection", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target, { poolSize: 1 });
    for (let n = 0; n < 3; n++) {
      await database.query({ doing: "ask" }, (sql) => sql<One[]>`select ${n}::int as one`);
    }
    const prepared = await database.query(
      { doing: "ask" },
      (sql) =>
        sql<
          { n: number }[]
        >`select count(*)::int as n from pg_prepared_statements where statement like 'select $1::int%'`,
    );
    assert.deepEqual(prepared, [{ n: 1 }]);
  });

  it("waits for what has to precede it, which is done once, or again after it failed", async () => {
    await using empty = await emptyDatabase();
    const outcomes: boolean[] = [];
    await using database = new Database(empty.target, {
      prepare: async () => {
        await sleep(1);
        outcomes.push(outcomes.length > 0);
        if (outcomes.length === 1) throw new Fault("unavailable", "not yet");
      },
    });
    const first = await Promise.allSettled([one(database), one(database)]);
    assert.deepEqual(
      first.map(({ status }) => status),
      ["rejected", "rejected"],
    );
    assert.deepEqual(await Promise.all([one(database), one(database)]), [1, 1]);
    assert.equal(await one(database), 1);
    assert.deepEqual(outcomes, [false, true]);
  });

  it("that takes longer than the server allows fails deadline_exceeded, and the pool goes on", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target, { statementTimeoutMs: 100 });
    const slow = database.query({ doing: "sleep" }, (sql) => sql`select pg_sleep(20)`);
    await assert.rejects(slow, isFault("deadline_exceeded", /^Cannot sleep: the database took too long$/));
    assert.equal(await one(database), 1);
  });

  it("on a connection that the server ends fails unavailable, and the next one gets a new connection", async () => {
    await using empty = await emptyDatabase();
    await using database = new Database(empty.target);
    const kill = `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()`;
    const running = database.query({ doing: "sleep" }, (sql) => sql`select pg_sleep(20)`);
    const rejected = assert.rejects(running, isFault("unavailable"));
    await until(async () => (await backends(empty.target, "query like '%pg_sleep%'")) === 1);
    await execute(empty.target, kill);
    await rejected;
    assert.equal(await one(database), 1);
    await execute(empty.target, kill);
    await until(async () => (await backends(empty.target, "true")) === 0);
    assert.equal(await one(database), 1);
  });

  it("is answered, well or badly, however often connections are cut under it", async () => {
    await using empty = await emptyDatabase();
    // No limit that could end a call which the broken connection forgot.
    await using database = new Database(empty.target, { statementTimeoutMs: 0, callTimeoutMs: 600_000 });
    const controller = new AbortController();
    const cutting = (async () => {
      while (!controller.signal.aborted) {
        await execute(
          empty.target,
          `select pg_terminate_backend(pid) from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid()`,
        );
        await sleep(5);
      }
    })();
    const outcomes = await Promise.all(
      Array.from({ length: 6 }, async () => {
        let answered = 0;
        for (let n = 0; n < 20; n++) {
          const outcome = await one(database).catch((error: unknown) => error);
          if (outcome === 1 || Fault.is(outcome, "unavailable")) answered++;
        }
        return answered;
      }),
    );
    controller.abort();
    await cutting;
    assert.deepEqual(
      outcomes,
      Array.from({ length: 6 }, () => 20),
    );
    // The last cut may still be on its way to us.
    await until(async () => (await one(database).catch(() => 0)) === 1);
  });

  it("after the store was closed is refused, and one under way ends with it", async () => {
    await using empty = await emptyDatabase();
    const database = new Database(empty.target, { statementTimeoutMs: 0, callTimeoutMs: 600_000 });
    const running = database.query({ doing: "sleep" }, (sql) => sql`select pg_sleep(600)`);
    const rejected = assert.rejects(running, isFault("cancelled", /closed/));
    await until(async () => (await backends(empty.target, "query like '%pg_sleep%'")) === 1);
    await database[Symbol.asyncDispose]();
    await rejected;
    await assert.rejects(one(database), isFault("cancelled", /closed/));
  });
});

describe("a database that refuses us", () => {
  it("for user, password or name fails at the start with what to check, and never shows the password", async () => {
    await using empty = await emptyDatabase();
    const lines: string[] = [];
    const log = createLogger({ level: "trace", format: "json", write: (line) => lines.push(line) });
    for (const [target, message] of [
      [{ ...empty.target, user: "nobody" }, /nobody/],
      [{ ...empty.target, database: "no'such \"db" }, /does not exist/],
    ] as const) {
      await assert.rejects(
        openStore({ database: { ...target, password: () => "geheim" }, namespace: "x", migrate: true, log }),
        (error: unknown) => {
          isFault("failed_precondition", message)(error);
          log.error({ err: error, target }, "failed");
          assert.match(Fault.from(error).hint ?? "", /database URL/);
          return true;
        },
      );
    }
    assert.doesNotMatch(lines.join(""), /geheim/);
  });

  it("because migrations are pending and not allowed names them, before anything else is touched", async () => {
    await using empty = await emptyDatabase();
    const options = { database: empty.target, namespace: "x", migrate: false, log: silentLogger() };
    await assert.rejects(
      openStore(options),
      isFault("failed_precondition", /at version 0 and this memoh needs \d+/),
    );
    assert.deepEqual(
      await execute(empty.target, "select 1 as one from pg_tables where schemaname = 'public'"),
      [],
    );
  });

  it("because it is newer says so", async () => {
    await using database = await freshDatabase();
    await execute(
      database.target,
      "insert into memoh_migrations (version, name, checksum) values (9999, 'future', '')",
    );
    for (const migrate of [true, false]) {
      const options = { database: database.target, namespace: "x", migrate, log: silentLogger() };
      await assert.rejects(
        openStore(options),
        isFault("failed_precondition", /newer than this memoh.*9999_future/),
      );
    }
  });
});

describe("parts with special characters", () => {
  it("reach the database as they are, from a URL too", async () => {
    await using rig = await freshStore();
    const name = "a b'c\"d\\e/f?g#h%i@j:k";
    await execute(rig.target, `create database "${name.replaceAll('"', '""')}"`);
    const encoded = `postgres://memoh@${encodeURIComponent(rig.target.host)}/${encodeURIComponent(name)}`;
    await using store = await openStore({
      database: encoded,
      namespace: "x",
      migrate: true,
      log: silentLogger(),
    });
    await store.ping();
    const rows = await execute<{ name: string }>(
      { ...rig.target, database: name },
      "select current_database() as name",
    );
    assert.deepEqual(rows, [{ name }]);
  });
});
