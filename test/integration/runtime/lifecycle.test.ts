// The life of a container on every containerd we support.
import assert from "node:assert/strict";
import { test } from "node:test";
import { daemonPidOf } from "../../../src/containerd/machine.ts";
import type { ContainerdVersion } from "../../support/containerd-debs.ts";
import { startWorld } from "./world.ts";

const VERSIONS: readonly ContainerdVersion[] = ["installed", "1.7", "2"];

for (const version of VERSIONS) {
  test(`a container is made, started, stopped, made again on its data and deleted on containerd ${version}`, async () => {
    await using world = await startWorld({ version });
    const { runtime } = world;
    const description = world.describe();
    const { id } = description;
    assert.equal(await runtime.inspect(id), undefined);
    assert.equal(await runtime.stopTask(id, { graceMs: 1 }), undefined);
    const told = /^v?1\.6\./.test((await runtime.info()).version) ? undefined : world.daemon.pid;
    assert.equal(await daemonPidOf(world.client), told);

    const made = await runtime.ensureContainer(description, { fresh: true });
    assert.equal(made.task, "none");
    assert.equal(made.snapshotExists, true);
    assert.equal(made.botId, description.botId);
    const pid = await runtime.createTask(id);
    assert.deepEqual((({ task, pid }) => ({ task, pid }))((await runtime.inspect(id)) ?? made), {
      task: "created",
      pid,
    });
    await runtime.startTask(id);
    await runtime.startTask(id);
    assert.equal((await runtime.inspect(id))?.task, "running");
    assert.match(await world.inside(id, "echo kept > /data/file; hostname"), /^bot\n$/);

    assert.equal(await runtime.stopTask(id, { graceMs: 5_000 }), 7);
    assert.equal((await runtime.inspect(id))?.task, "none");
    await runtime.deleteContainer(id);
    await runtime.deleteContainer(id);
    assert.equal(await runtime.inspect(id), undefined);

    await runtime.ensureContainer(description, { fresh: false });
    await runtime.createTask(id);
    await runtime.startTask(id);
    assert.equal(await world.inside(id, "cat /data/file"), "kept\n");
    assert.deepEqual(
      (await runtime.list()).map((each) => [each.id, each.task]),
      [[id, "running"]],
    );
    await runtime.stopTask(id, { graceMs: 0 });
    await runtime.deleteContainer(id);
    await runtime.deleteData(id);
    await runtime.deleteData(id);
    assert.deepEqual(await runtime.list(), []);
    assert.match((await runtime.info()).uuid, /^[0-9a-f-]{36}$/);
  });
}
