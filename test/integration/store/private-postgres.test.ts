// The private Postgres: made, adopted, crashed, healed and refused, with the distribution's programs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { mustRun, runCommand } from "../../../src/lib/command.ts";
import { identify } from "../../../src/lib/daemon.ts";
import { type Code, Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import {
  findPrivatePostgres,
  openPrivatePostgres,
  type PrivatePostgres,
  type PrivatePostgresOptions,
} from "../../../src/store/private-postgres.ts";
import { execute } from "../../support/postgres.ts";

/** As quick as a crash of the process alone allows: what is committed has left it. */
const CRASH_SAFE = { fsync: "off", full_page_writes: "off" };

interface Rig extends AsyncDisposable {
  readonly dataDir: string;
  readonly open: (options?: Partial<PrivatePostgresOptions>) => Promise<PrivatePostgres>;
}

let made: Promise<string> | undefined;

/** A stopped cluster to copy, because making one costs more than all else here. */
async function makeCluster(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "memoh-pg-"));
  await (await openPrivatePostgres({ dataDir: directory, log: silentLogger(), settings: CRASH_SAFE })).stop();
  return directory;
}

after(async () => {
  if (made !== undefined) await rm(await made, { recursive: true });
});

/** A data directory that anyone may pass, and what runs in it until the end of the test. */
async function rig(options: { readonly mode?: number; readonly made?: boolean } = {}): Promise<Rig> {
  const top = await mkdtemp(join(tmpdir(), "memoh-pg-"));
  await chmod(top, options.mode ?? 0o711);
  const dataDir = join(top, "var", "data");
  if (options.made === true) {
    await mkdir(join(top, "var"));
    await mustRun(["cp", "-a", await (made ??= makeCluster()), dataDir]);
  }
  return {
    dataDir,
    open: async (options) =>
      await openPrivatePostgres({ dataDir, log: silentLogger(), settings: CRASH_SAFE, ...options }),
    [Symbol.asyncDispose]: async () => {
      await (await findPrivatePostgres({ dataDir }))?.stop();
      await rm(top, { recursive: true });
    },
  };
}

function isFault(code: Code, message: RegExp, hint = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(Fault.is(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.match(error.hint ?? "", hint);
    return true;
  };
}

/** Names in a directory that may be gone or not there yet. */
async function filesOf(directory: string): Promise<string[]> {
  return await readdir(directory).catch((): string[] => []);
}

async function ask(postgres: PrivatePostgres, expression: string): Promise<unknown> {
  const rows = await execute<{ answer: unknown }>(postgres.target, `select ${expression} as answer`);
  return rows[0]?.answer;
}

/** Another host as a process of its own; it says the postmaster's pid and then waits to be killed. */
function spawnHost(dataDir: string) {
  const program = `
    import { openPrivatePostgres } from ${JSON.stringify(join(import.meta.dirname, "../../../src/store/private-postgres.ts"))};
    import { silentLogger } from ${JSON.stringify(join(import.meta.dirname, "../../../src/lib/log.ts"))};
    const [dataDir, settings] = ${JSON.stringify([dataDir, CRASH_SAFE])};
    const postgres = await openPrivatePostgres({ dataDir, settings, log: silentLogger() });
    console.log(postgres.pid);
    setInterval(() => undefined, 1000);`;
  return spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function firstLine(child: ReturnType<typeof spawnHost>): Promise<number> {
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return Number(String(line));
}

async function crash(child: ReturnType<typeof spawnHost>): Promise<void> {
  child.kill("SIGKILL");
  await once(child, "exit");
}

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

  it("works below a directory that the user postgres may not pass, and leaves that closed", async () => {
    await using place = await rig({ mode: 0o700, made: true });
    const postgres = await place.open();
    await execute(postgres.target, "create table kept (n int); insert into kept values (7)");
    assert.equal((await stat(join(place.dataDir, "../.."))).mode & 0o777, 0o700);
    assert.equal((await place.open()).pid, postgres.pid);
    await postgres.stop();
    assert.equal(await ask(await place.open(), "(select n from kept)"), 7);
    // The bind mount is the server's alone.
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

  it("is not looked for in its own backends", async () => {
    await using place = await rig({ made: true });
    const postgres = await place.open();
    const children = await readFile(`/proc/${postgres.pid}/task/${postgres.pid}/children`, "utf8");
    const [backend] = children.trim().split(" ");
    const lock = join(place.dataDir, "postgres/data/postmaster.pid");
    const text = await readFile(lock, "utf8");
    await writeFile(lock, text.replace(/^\d+/, backend ?? ""));
    assert.equal(await findPrivatePostgres({ dataDir: place.dataDir }), undefined);
    await writeFile(lock, text);
    assert.equal((await findPrivatePostgres({ dataDir: place.dataDir }))?.pid, postgres.pid);
  });
});

describe("the private Postgres refuses", () => {
  it("a path that is too long for its socket, and makes nothing", async () => {
    await using place = await rig();
    const dataDir = join(place.dataDir, "x".repeat(100));
    await assert.rejects(
      place.open({ dataDir }),
      isFault("failed_precondition", /socket is longer than 107 bytes/),
    );
    await assert.rejects(stat(place.dataDir), /ENOENT/);
  });

  it("a machine without Postgres, naming the package", async () => {
    await using place = await rig();
    await assert.rejects(
      place.open({ binariesRoot: "/nowhere" }),
      isFault("failed_precondition", /none is installed/, /apt-get install .*postgresql/),
    );
  });

  it("a cluster of a version that is not installed, and leaves it as it is", async () => {
    await using place = await rig();
    const data = join(place.dataDir, "postgres/data");
    await mkdir(data, { recursive: true });
    await writeFile(join(data, "PG_VERSION"), "12\n");
    await assert.rejects(
      place.open(),
      isFault("failed_precondition", /version 12, installed is/, /postgresql-12/),
    );
    assert.deepEqual(await readdir(data), ["PG_VERSION"]);
  });

  it("to run over files that are no cluster, and leaves them", async () => {
    await using place = await rig();
    const data = join(place.dataDir, "postgres/data");
    await mkdir(data, { recursive: true });
    await writeFile(join(data, "thesis.txt"), "dear");
    await assert.rejects(place.open(), isFault("failed_precondition", /is not a cluster/, /deletes nothing/));
    assert.deepEqual(await readdir(data), ["thesis.txt"]);
  });

  it("to run for anyone but root", async (t) => {
    const { getuid } = process;
    t.after(() => Object.assign(process, { getuid }));
    process.getuid = () => 1000;
    await assert.rejects(
      openPrivatePostgres({ dataDir: "/nowhere", log: silentLogger() }),
      isFault("permission_denied", /only root/),
    );
  });

  it("a configuration that the server does not take, with the server's words", async () => {
    await using place = await rig({ made: true });
    await assert.rejects(
      place.open({ settings: { shared_buffers: "lots" } }),
      isFault("internal", /shared_buffers/, /^/),
    );
    assert.equal(await ask(await place.open(), "1"), 1);
  });

  it("to make a cluster on a full disk, says so, and makes it once there is room", async () => {
    await using place = await rig();
    await mkdir(place.dataDir, { recursive: true });
    await mustRun(["mount", "-t", "tmpfs", "-o", "size=8m", "memoh-test", place.dataDir]);
    try {
      await assert.rejects(place.open(), isFault("resource_exhausted", /No space left/i, /Free disk space/));
      assert.deepEqual(
        (await readdir(join(place.dataDir, "postgres"))).filter((name) => name !== "run"),
        [],
      );
      await mustRun(["mount", "-o", "remount,size=128m", place.dataDir]);
      const postgres = await place.open();
      await execute(postgres.target, "create table big (t text)");
      await runCommand(["dd", "if=/dev/zero", `of=${place.dataDir}/fill`, "bs=1M"]);
      await assert.rejects(
        execute(
          postgres.target,
          "insert into big select string_agg(gen_random_uuid()::text, '') from generate_series(1, 8000)",
        ),
        (error: unknown) => error instanceof Error && "code" in error && error.code === "53100",
      );
      await rm(join(place.dataDir, "fill"));
      assert.equal(await ask(await place.open(), "(select count(*)::int from big)"), 0);
      await postgres.stop();
    } finally {
      await (await findPrivatePostgres({ dataDir: place.dataDir }))?.stop();
      await mustRun(["umount", place.dataDir]);
    }
  });

  it("to signal a process that is not the one it found", async () => {
    await using place = await rig({ made: true });
    const postgres = await place.open();
    const found = await findPrivatePostgres({ dataDir: place.dataDir });
    process.kill(postgres.pid, "SIGKILL");
    while ((await identify(postgres.pid)) !== undefined) await sleep(5);
    await found?.stop();
    const again = await place.open();
    await found?.stop();
    assert.equal(await ask(again, "1"), 1);
  });
});
