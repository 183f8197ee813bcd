// The private Postgres: made, adopted, crashed and healed, with the distribution's programs.
import assert from "node:assert/strict";
import { chmod, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { mustRun, runCommand } from "../../../src/lib/command.ts";
import { createLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { findPrivatePostgres } from "../../../src/store/private-postgres.ts";
import { isFault } from "../../support/fault.ts";
import { execute } from "../../support/postgres.ts";
import { ask, crash, filesOf, firstLine, rig, spawnHost } from "../../support/private-postgres.ts";

describe("the private Postgres", () => {
  it("runs as the user postgres on a unix socket that only this host's user can use, durably", async () => {
    await using place = await rig();
    const postgres = await place.open({ settings: {} });
    assert.equal(postgres.adopted, false);
    const { uid } = await stat(`/proc/${postgres.pid}`);
    assert.equal(String(uid), (await mustRun(["id", "-u", "postgres"])).stdout.trim());
    const rows = await execute<{ name: string; setting: string }>(
      postgres.target,
      `select name, setting from pg_settings where name in
         ('fsync', 'full_page_writes', 'synchronous_commit', 'data_checksums', 'listen_addresses', 'server_encoding') order by 1`,
    );
    assert.deepEqual(
      rows.map(({ setting }) => setting),
      ["on", "on", "on", "", "UTF8", "on"],
    );
    assert.deepEqual(
      [await ask(postgres, "current_user"), await ask(postgres, "current_database()")],
      ["memoh", "memoh"],
    );
    const socket = join(postgres.target.host, ".s.PGSQL.5432");
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-w", socket];
    assert.notEqual((await runCommand(nobody)).code, 0);
    const base = join(place.dataDir, "postgres");
    const modes = await Promise.all(
      [place.dataDir, base, join(base, "data"), join(base, "run")].map(
        async (path) => (await stat(path)).mode & 0o777,
      ),
    );
    assert.deepEqual(modes, [0o711, 0o711, 0o700, 0o700]);
  });

  it("outlives kill -9 of its host and is adopted by the next, with its data", async () => {
    await using place = await rig({ made: true });
    const host = spawnHost(place.dataDir);
    const pid = await firstLine(host);
    await crash(host);
    const postgres = await place.open();
    assert.deepEqual([postgres.pid, postgres.adopted], [pid, true]);
    await execute(postgres.target, "create table kept (n int); insert into kept values (7)");
    // Orphaned and killed, it stays a zombie until PID 1 reaps it: the restart waits for that.
    process.kill(pid, "SIGKILL");
    const after = await place.open();
    assert.notEqual(after.pid, pid);
    assert.equal(await ask(after, "(select n from kept)"), 7);
  });

  it("is made whole after kill -9 at any moment of the making", async () => {
    await using place = await rig();
    const base = join(place.dataDir, "postgres");
    for (const marker of ["", "postgresql.conf"]) {
      const host = spawnHost(place.dataDir);
      host.stdout.resume();
      for (let found = false; !found; await sleep(2)) {
        const names = await filesOf(base);
        const half = names.find((name) => name.startsWith(".init-"));
        if (half !== undefined) found = marker === "" || (await filesOf(join(base, half))).includes(marker);
        if (names.includes("data")) break;
      }
      await crash(host);
    }
    const postgres = await place.open();
    assert.equal(await ask(postgres, "1"), 1);
    // What the killed hosts' own initdb goes on with is theirs until they end; nothing of it is in the cluster.
    assert.equal((await readFile(join(base, "data", "PG_VERSION"), "utf8")).trim(), "15");
  });

  it("heeds a signal while it is made, and is made by the next", async () => {
    await using place = await rig();
    const controller = new AbortController();
    const opening = place.open({ signal: controller.signal });
    const rejected = assert.rejects(opening, isFault("cancelled"));
    while (!(await filesOf(join(place.dataDir, "postgres"))).some((name) => name.startsWith(".init-")))
      await sleep(2);
    controller.abort();
    await rejected;
    assert.equal(await ask(await place.open(), "1"), 1);
  });

  it("is one, whoever opens it at the same time", async () => {
    await using place = await rig();
    const host = spawnHost(place.dataDir);
    const opened = await Promise.all([
      firstLine(host),
      place.open().then(({ pid }) => pid),
      place.open().then(({ pid }) => pid),
    ]);
    assert.equal(new Set(opened).size, 1, String(opened));
    await crash(host);
    const names = await readdir(join(place.dataDir, "postgres"));
    assert.deepEqual(
      names.filter((name) => name.startsWith(".init-")),
      [],
    );
  });

  it("is started again when it crashes, and left alone when it was stopped and the watch ended", async () => {
    await using place = await rig({ made: true });
    const postgres = await place.open();
    await execute(postgres.target, "create table kept (n int); insert into kept values (7)");
    const watch = new AbortController();
    const watching = postgres.keepRunning(watch.signal);
    for (let round = 0; round < 2; round++) {
      const { pid } = postgres;
      process.kill(pid, "SIGKILL");
      while (postgres.pid === pid) await sleep(10);
      assert.equal(await ask(postgres, "(select n from kept)"), 7);
    }
    watch.abort();
    await watching;
    await postgres.stop();
    assert.equal(await findPrivatePostgres({ dataDir: place.dataDir }), undefined);
    assert.equal(await ask(await place.open(), "(select n from kept)"), 7);
  });

  it("is not made anew while a host looks after it: data that vanished stays missed", async () => {
    await using place = await rig({ made: true });
    const lines: string[] = [];
    const log = createLogger({ level: "error", format: "text", write: (line) => lines.push(line) });
    const postgres = await place.open({ log });
    await postgres.stop();
    const data = join(place.dataDir, "postgres/data");
    await rm(data, { recursive: true });
    const watch = new AbortController();
    const watching = postgres.keepRunning(watch.signal);
    while (!lines.join("").includes("has vanished")) await sleep(10);
    watch.abort();
    await watching;
    await assert.rejects(stat(data), /ENOENT/);
  });

  it("works below a directory that the user postgres may not pass, and leaves that closed", async () => {
    await using place = await rig({ mode: 0o700, made: true });
    const postgres = await place.open();
    await execute(postgres.target, "create table kept (n int); insert into kept values (7)");
    assert.equal((await stat(join(place.dataDir, "../.."))).mode & 0o777, 0o700);
    assert.equal((await place.open()).pid, postgres.pid);
    await postgres.stop();
    const runDir = join(place.dataDir, "../run");
    assert.equal(await ask(await place.open({ runDir }), "(select n from kept)"), 7);
    // The bind mounts are the server's alone.
    assert.doesNotMatch(await readFile("/proc/self/mountinfo", "utf8"), /memoh-pg-/);
  });

  it("can have its socket in a run directory, and gets a new one when that was wiped", async () => {
    await using place = await rig({ made: true });
    const runDir = join(place.dataDir, "../run");
    const postgres = await place.open({ runDir });
    assert.equal(postgres.target.host, join(runDir, "postgres"));
    await rm(runDir, { recursive: true });
    assert.equal(await ask(await place.open({ runDir }), "1"), 1);
  });

  it("starts over a lock file that names a living process of something else", async () => {
    await using place = await rig({ made: true });
    await (await place.open()).stop();
    const lock = join(place.dataDir, "postgres/data/postmaster.pid");
    await writeFile(lock, `${process.pid}\n${place.dataDir}/postgres/data\n1\n5432\n\n\n0\nready   \n`);
    await chmod(lock, 0o600);
    await mustRun(["chown", "postgres:postgres", lock]);
    assert.equal(await findPrivatePostgres({ dataDir: place.dataDir }), undefined);
    const postgres = await place.open();
    assert.equal(await ask(postgres, "1"), 1);
    assert.notEqual(postgres.pid, process.pid);
  });

  it("is not looked for in its own backends, nor in another cluster's server", async () => {
    await using place = await rig({ made: true });
    await using other = await rig({ made: true });
    const foreign = await other.open();
    const postgres = await place.open();
    const children = await readFile(`/proc/${postgres.pid}/task/${postgres.pid}/children`, "utf8");
    const [backend] = children.trim().split(" ");
    const lock = join(place.dataDir, "postgres/data/postmaster.pid");
    const text = await readFile(lock, "utf8");
    for (const pid of [String(backend), String(foreign.pid)]) {
      await writeFile(lock, text.replace(/^\d+/, pid));
      assert.equal(await findPrivatePostgres({ dataDir: place.dataDir }), undefined);
    }
    await writeFile(lock, text);
    assert.equal((await findPrivatePostgres({ dataDir: place.dataDir }))?.pid, postgres.pid);
  });
});
