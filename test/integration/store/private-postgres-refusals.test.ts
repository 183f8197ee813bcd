// What the private Postgres refuses, and what it says then.
import assert from "node:assert/strict";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { mustRun, runCommand } from "../../../src/lib/command.ts";
import { identify } from "../../../src/lib/daemon.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { findPrivatePostgres, openPrivatePostgres } from "../../../src/store/private-postgres.ts";
import { isFault } from "../../support/fault.ts";
import { execute } from "../../support/postgres.ts";
import { ask, rig } from "../../support/private-postgres.ts";

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
