// A database that is away, freezes or hangs up: calls fail in time and heal by themselves.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { createLogger, silentLogger } from "../../../src/lib/log.ts";
import { Database } from "../../../src/store/database.ts";
import { openStore } from "../../../src/store/open-store.ts";
import { openPrivatePostgres } from "../../../src/store/private-postgres.ts";
import { isFault } from "../../support/fault.ts";
import { emptyDatabase, FAST_SETTINGS } from "../../support/postgres.ts";
import { startProxy } from "../../support/postgres-proxy.ts";

interface One {
  readonly one: number;
}

async function one(database: Database, signal?: AbortSignal): Promise<number | undefined> {
  const rows = await database.query({ doing: "count to one", signal }, (sql) => sql<One[]>`select 1 as one`);
  return rows[0]?.one;
}

describe("a database that is away", { timeout: 120_000 }, () => {
  it("fails calls at once, and they heal by themselves when it is back", async () => {
    const dataDir = await mkdtemp(join(tmpdir(), "memoh-store-outage-"));
    try {
      const options = { dataDir, log: silentLogger(), settings: FAST_SETTINGS };
      const postgres = await openPrivatePostgres(options);
      await using store = await openStore({
        database: postgres.target,
        namespace: "x",
        migrate: true,
        log: silentLogger(),
        // A minute, so that only failing at once can pass.
        callTimeoutMs: 60_000,
      });
      assert.equal(await store.settings.setOnce("k", "before"), "before");
      for (let round = 0; round < 2; round++) {
        await postgres.stop();
        for (let n = 0; n < 3; n++) {
          await assert.rejects(store.settings.get("k"), (error: unknown) => {
            assert.ok(Fault.is(error, "unavailable"), String(error));
            assert.match(error.hint ?? "", /Start Postgres/);
            return true;
          });
        }
        await openPrivatePostgres(options);
        assert.equal(await store.settings.get("k"), "before");
      }
      await postgres.stop();
    } finally {
      await rm(dataDir, { recursive: true });
    }
  });

  it("at the start is no error: the store migrates and serves once it answers", async () => {
    await using empty = await emptyDatabase();
    await using proxy = await startProxy(empty.target, "down");
    const lines: string[] = [];
    const log = createLogger({ level: "info", format: "text", write: (line) => lines.push(line) });
    await using store = await openStore({ database: proxy.target, namespace: "x", migrate: true, log });
    assert.match(lines.join(""), /the database is down/);
    await assert.rejects(store.ping(), isFault("unavailable"));
    proxy.mode = "up";
    assert.equal(await store.settings.setOnce("k", "v"), "v");
  });

  it("that accepts and never answers fails calls within their time", async () => {
    await using empty = await emptyDatabase();
    await using proxy = await startProxy(empty.target, "silent");
    await using database = new Database(proxy.target);
    await assert.rejects(one(database), isFault("unavailable", /does not answer/));
    proxy.mode = "up";
    assert.equal(await one(database), 1);
    proxy.mode = "silent";
    await using impatient = new Database(proxy.target, { callTimeoutMs: 100 });
    await assert.rejects(one(impatient), isFault("unavailable", /did not answer within 0.1 s/));
  });

  it("that freezes under a call fails it within its time, and the pool heals", async () => {
    await using empty = await emptyDatabase();
    await using proxy = await startProxy(empty.target, "up");
    await using database = new Database(proxy.target, { callTimeoutMs: 300, poolSize: 1 });
    assert.equal(await one(database), 1);
    proxy.mode = "silent";
    await assert.rejects(one(database), isFault("unavailable", /did not answer within/));
    proxy.mode = "up";
    assert.equal(await one(database), 1);
  });

  it("that hangs up before it answers fails calls without end of trying", async () => {
    await using empty = await emptyDatabase();
    await using proxy = await startProxy(empty.target, "hangup");
    await using database = new Database(proxy.target);
    await assert.rejects(one(database), isFault("unavailable"));
    assert.equal(proxy.connections(), 1);
  });
});
