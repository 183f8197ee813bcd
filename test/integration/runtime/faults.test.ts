// The daemon or a shim dies between or during calls: the same calls again end where they should.
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ContainerData } from "../../../src/containerd/container-data.ts";
import { Tasks, type TaskTimes } from "../../../src/containerd/tasks.ts";
import { mustRun } from "../../../src/lib/command.ts";
import { identify } from "../../../src/lib/daemon.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { shimsOf } from "../../support/containerd.ts";
import { startWorld, type World } from "./world.ts";

/** Patience for tests: enough for a flooded machine, short enough to wait for. */
const TIMES: TaskTimes = { createMs: 3_000, settleMs: 1_500, killMs: 300 };

describe("daemon and shim deaths", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(async () => {
    await world[Symbol.asyncDispose]();
  });

  /** Calls as the host does: again while the daemon is away. */
  const retried = async <T>(act: () => Promise<T>): Promise<T> => {
    for (const until = Date.now() + 20_000; ; await sleep(50)) {
      try {
        return await act();
      } catch (error) {
        if (!Fault.is(error, "unavailable") || Date.now() > until) throw error;
      }
    }
  };
  const bounce = async () => {
    await world.daemon.kill();
    await world.daemon.restart();
  };
  const state = async (id: string) => (await retried(() => world.runtime.inspect(id)))?.task;
  const killShim = async (id: string) => {
    const shim = (await shimsOf(world.daemon.socket)).find((each) => each.containerId === id);
    assert.ok(shim !== undefined, "the container has a shim");
    process.kill(shim.pid, "SIGKILL");
  };
  const noShim = async (id: string) => {
    for (const end = Date.now() + 10_000; ; await sleep(20)) {
      const shims = await shimsOf(world.daemon.socket);
      if (!shims.some((each) => each.containerId === id)) return;
      assert.ok(Date.now() < end, "a shim stays");
    }
  };
  const until = async (id: string, wanted: string) => {
    for (const end = Date.now() + 15_000; (await state(id)) !== wanted; await sleep(20)) {
      assert.ok(Date.now() < end, `${id} did not become ${wanted}: ${await state(id)}`);
    }
  };

  test("a daemon killed between any two calls changes nothing", async () => {
    const description = world.describe();
    const { id } = description;
    const steps: readonly [() => Promise<unknown>, string | undefined][] = [
      [() => world.runtime.ensureContainer(description, { fresh: true }), "none"],
      [() => world.runtime.createTask(id), "created"],
      [() => world.runtime.startTask(id), "running"],
      [() => world.runtime.updateLimits(id, { memory: 48 << 20 }), "running"],
      [() => world.runtime.stopTask(id, { graceMs: 5_000 }), "none"],
      [() => world.runtime.ensureContainer(description, { fresh: false }), "none"],
      [() => world.runtime.createTask(id), "created"],
      [() => world.runtime.stopTask(id, { graceMs: 0 }), "none"],
      [() => world.runtime.deleteContainer(id), undefined],
      [() => world.runtime.deleteData(id), undefined],
    ];
    for (const [index, [step, after]] of steps.entries()) {
      await retried(step);
      await bounce();
      assert.equal(await state(id), after, `after step ${index}`);
    }
  });

  test("a stop goes on over a daemon killed in the middle of it", async () => {
    const description = world.describe({
      args: ["/bin/sh", "-c", "trap 'sleep 1; exit 9' TERM; while :; do sleep 1000 & wait $!; done"],
    });
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    // The trap is set once the shell answers.
    await world.inside(id, "true");
    const stopped = world.runtime.stopTask(id, { graceMs: 10_000 });
    await sleep(300);
    await bounce();
    // 1.7 and later forget the status of a task that ended while they were away.
    assert.ok([9, undefined].includes(await stopped));
    assert.equal(await state(id), "none");
  });

  test("a container whose shim was killed has no task and is started again on its data", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    await world.inside(id, "echo kept > /data/file");
    await killShim(id);
    await until(id, "none");
    await world.runtime.ensureContainer(description, { fresh: false });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    assert.equal(await world.inside(id, "cat /data/file"), "kept\n");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a shim killed at once, before anything was looked at, is no obstacle to stop, create and start", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    await killShim(id);
    await retried(() => world.runtime.stopTask(id, { graceMs: 1_000 }));
    await world.runtime.ensureContainer(description, { fresh: false });
    await retried(() => world.runtime.createTask(id));
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await killShim(id);
    await world.runtime.stopTask(id, { graceMs: 1_000 });
    await retried(() => world.runtime.createTask(id));
    // Between create and start: the task is gone, and the whole start again mends it.
    await killShim(id);
    const error = await world.runtime.startTask(id).catch((reason: unknown) => reason);
    assert.ok(Fault.is(error, "aborted", "unavailable"), String(error));
    await world.runtime.stopTask(id, { graceMs: 0 });
    await retried(() => world.runtime.createTask(id));
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a stop whose shim is killed in the middle of it ends", async () => {
    const description = world.describe({ args: ["/bin/sh", "-c", "trap '' TERM; sleep 1000"] });
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    const stopped = world.runtime.stopTask(id, { graceMs: 20_000 });
    await sleep(200);
    await killShim(id);
    await stopped;
    assert.equal(await state(id), "none");
  });

  test("a shim that hangs holds up neither the list nor the end", async () => {
    const [hung, other] = [world.describe(), world.describe()];
    for (const description of [hung, other]) {
      await world.runtime.ensureContainer(description, { fresh: true });
      await world.runtime.createTask(description.id);
      await world.runtime.startTask(description.id);
    }
    const shim = (await shimsOf(world.daemon.socket)).find((each) => each.containerId === hung.id);
    assert.ok(shim !== undefined);
    process.kill(shim.pid, "SIGSTOP");
    const listed = (await world.runtime.list()).filter(({ id }) => id === hung.id || id === other.id);
    // What cannot be known counts as running, so that nobody touches its data.
    assert.deepEqual(
      listed.map(({ task }) => task),
      ["running", "running"],
    );
    const tasks = new Tasks(world.client, new ContainerData(world.client, "overlayfs"), TIMES);
    await tasks.stop(hung.id, 100);
    assert.equal(await state(hung.id), "none");
    assert.equal(await state(other.id), "running");
    await world.runtime.stopTask(other.id, { graceMs: 0 });
    await world.runtime.ensureContainer(hung, { fresh: false });
    await retried(() => world.runtime.createTask(hung.id));
    await world.runtime.startTask(hung.id);
    await world.runtime.stopTask(hung.id, { graceMs: 0 });
  });

  test("a host that dies in the middle of a create leaves nothing that the next create cannot mend", async () => {
    const tasks = new Tasks(world.client, new ContainerData(world.client, "overlayfs"), TIMES);
    for (const ms of [10, 25, 40, 55]) {
      const description = world.describe();
      const { id } = description;
      await world.runtime.ensureContainer(description, { fresh: true });
      const { mounts: rootfs } = await world.client.snapshots.mounts({ snapshotter: "overlayfs", key: id });
      // For the daemon a client that cancels and one that is gone are the same.
      await world.client.tasks
        .create({ containerId: id, rootfs }, { signal: AbortSignal.timeout(ms) })
        .catch(() => undefined);
      await tasks.stop(id, 0);
      await tasks.create(id);
      await tasks.start(id);
      assert.equal(await world.inside(id, "echo up"), "up\n", `after ${ms} ms`);
      await tasks.stop(id, 0);
      await noShim(id);
    }
  });

  for (const how of ["SIGSTOP", "SIGCONT"] as const) {
    test(`a container that the daemon has forgotten is ended and replaced, its shim ${how === "SIGSTOP" ? "hanging" : "alive"}`, async () => {
      const description = world.describe();
      const { id } = description;
      await world.runtime.ensureContainer(description, { fresh: true });
      const forgotten = await world.runtime.createTask(id);
      const shim = (await shimsOf(world.daemon.socket)).find((each) => each.containerId === id);
      assert.ok(shim !== undefined);
      await world.daemon.kill();
      process.kill(shim.pid, how);
      const bundle = join(
        world.daemon.dir,
        "state/io.containerd.runtime.v2.task",
        world.daemon.namespace,
        id,
      );
      await mustRun(["umount", join(bundle, "rootfs")]);
      await rm(bundle, { recursive: true });
      await world.daemon.restart();
      assert.equal(await state(id), "none");
      const tasks = new Tasks(world.client, new ContainerData(world.client, "overlayfs"), TIMES);
      await tasks.create(id);
      await tasks.start(id);
      assert.equal(await world.inside(id, "echo up"), "up\n");
      assert.equal(await identify(forgotten), undefined);
      await tasks.stop(id, 0);
      await noShim(id);
    });
  }

  test("a shim killed while the daemon is away leaves no task when it is back", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    await world.daemon.kill();
    await killShim(id);
    await world.daemon.restart();
    await until(id, "none");
    await world.runtime.ensureContainer(description, { fresh: false });
    await retried(() => world.runtime.createTask(id));
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  // 1.7 and later delete such a task themselves at their start.
  test("a task that ended while the daemon was away is stopped, with its status, when it is back, or gone", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    const pid = (await world.runtime.inspect(id))?.pid ?? 0;
    assert.ok(pid > 1);
    await world.daemon.kill();
    process.kill(pid, "SIGKILL");
    await world.daemon.restart();
    while ((await state(id)) === "running") await sleep(20);
    const ended = await world.runtime.inspect(id);
    assert.ok(ended?.task === "none" || (ended?.task === "stopped" && ended.exitStatus === 137));
    const status = await world.runtime.stopTask(id, { graceMs: 0 });
    assert.equal(status, ended.task === "none" ? undefined : 137);
    assert.equal(await state(id), "none");
  });

  test("a daemon that is away is unavailable, with a hint", async () => {
    await world.daemon.kill();
    for (const act of [
      () => world.runtime.info(),
      () => world.runtime.list(),
      () => world.runtime.inspect("mcp-x"),
      () => world.runtime.createTask("mcp-x"),
      () => world.runtime.ensureContainer(world.describe(), { fresh: true }),
    ]) {
      await assert.rejects(act(), (error) => {
        assert.ok(Fault.is(error, "unavailable"), String(error));
        assert.match(error.message, /^Cannot reach containerd at \/tmp\//);
        assert.ok(error.hint !== undefined);
        return true;
      });
    }
    await world.daemon.restart();
    await retried(() => world.runtime.info());
  });
});
