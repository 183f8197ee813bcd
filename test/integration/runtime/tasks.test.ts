// Tasks that fail, end, freeze or are raced for: what is left is always one task or none.
import assert from "node:assert/strict";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ContainerDescription } from "../../../src/core/runtime.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { shimsOf } from "../../support/containerd.ts";
import { startWorld, type World } from "./world.ts";

describe("tasks", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(async () => {
    await world[Symbol.asyncDispose]();
  });

  /** A container with its record and data. */
  const make = async (changes: Partial<ContainerDescription> = {}): Promise<string> => {
    const description = world.describe(changes);
    await world.runtime.ensureContainer(description, { fresh: true });
    return description.id;
  };
  const run = async (changes: Partial<ContainerDescription> = {}): Promise<string> => {
    const id = await make(changes);
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    return id;
  };
  const state = async (id: string) => (await world.runtime.inspect(id))?.task;

  test("a task that ends at once is seen as stopped with its status, and is replaced by the next", async () => {
    const id = await run({ args: ["/bin/sh", "-c", "exit 3"] });
    while ((await state(id)) !== "stopped") await new Promise((resolve) => setTimeout(resolve, 5));
    const ended = await world.runtime.inspect(id);
    assert.equal(ended?.exitStatus, 3);
    assert.ok(ended.exitedAt !== undefined && Math.abs(Date.now() - ended.exitedAt.getTime()) < 60_000);
    await assert.rejects(world.runtime.startTask(id), (error) => Fault.is(error, "aborted"));
    await assert.rejects(world.runtime.deleteContainer(id), (error) =>
      Fault.is(error, "failed_precondition"),
    );
    await world.runtime.createTask(id);
    assert.equal(await state(id), "created");
    await world.runtime.startTask(id);
    while ((await state(id)) !== "stopped") await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(await world.runtime.stopTask(id, { graceMs: 0 }), 3);
    assert.equal(await state(id), "none");
  });

  test("a program the image lacks is a failed precondition and leaves no task", async () => {
    const id = await make({ args: ["/bin/nothing-here"] });
    await assert.rejects(world.runtime.createTask(id), (error) => {
      assert.ok(Fault.is(error, "failed_precondition"), String(error));
      assert.match(error.message, /program cannot be executed/);
      return true;
    });
    assert.equal(await state(id), "none");
    await world.runtime.deleteContainer(id);
  });

  test("a file that is no program is a failed precondition or an immediate end", async () => {
    const id = await make({ args: ["/etc/passwd"] });
    await assert.rejects(world.runtime.createTask(id), (error) => Fault.is(error, "failed_precondition"));
    assert.equal(await state(id), "none");
  });

  test("a network namespace that is gone asks for the whole start again and leaves no task", async () => {
    const id = await make({ netnsPath: "/run/netns/memoh-t-gone" });
    await assert.rejects(world.runtime.createTask(id), (error) => {
      assert.ok(Fault.is(error, "aborted"), String(error));
      assert.match(error.message, /network namespace is gone/);
      return true;
    });
    assert.equal(await state(id), "none");
  });

  test("a mount whose source is gone asks for the whole start again and leaves no task", async () => {
    const id = await make({ mounts: [{ source: join(world.daemon.dir, "gone"), target: "/mnt" }] });
    await assert.rejects(world.runtime.createTask(id), (error) => {
      assert.ok(Fault.is(error, "aborted"), String(error));
      return true;
    });
    assert.equal(await state(id), "none");
  });

  test("a runtime program that is not installed is a failed precondition; another one takes its place", async () => {
    const other = join(world.daemon.dir, "my-runc");
    const description = world.describe();
    await world
      .newRuntime({ runtimeBinary: "memoh-no-such-program" })
      .ensureContainer(description, { fresh: true });
    await assert.rejects(world.runtime.createTask(description.id), (error) => {
      assert.ok(Fault.is(error, "failed_precondition"), String(error));
      assert.match(error.message, /runtime program is not installed/);
      return true;
    });
    assert.equal(await state(description.id), "none");

    await writeFile(other, `#!/bin/sh\necho used >> ${other}.log\nexec runc "$@"\n`);
    await chmod(other, 0o755);
    await world.newRuntime({ runtimeBinary: other }).ensureContainer(description, { fresh: false });
    await world.runtime.createTask(description.id);
    await world.runtime.startTask(description.id);
    assert.equal(await world.inside(description.id, "echo hi"), "hi\n");
    await world.runtime.stopTask(description.id, { graceMs: 0 });
  });

  test("a task that ignores TERM is killed after the grace", async () => {
    const id = await run({ args: ["/bin/sh", "-c", "trap '' TERM; touch /ready; sleep 1000"] });
    assert.equal(await world.runtime.stopTask(id, { graceMs: 50 }), 137);
    assert.equal(await state(id), "none");
  });

  test("a task that was created and never started is stopped; one that is paused too", async () => {
    const created = await make();
    await world.runtime.createTask(created);
    await world.runtime.stopTask(created, { graceMs: 5_000 });
    assert.equal(await state(created), "none");

    const paused = await run();
    await world.inside(paused, "true");
    await world.client.tasks.pause({ containerId: paused });
    assert.equal(await state(paused), "paused");
    assert.equal(await world.runtime.stopTask(paused, { graceMs: 5_000 }), 7);
    assert.equal(await state(paused), "none");
  });

  test("a paused task goes on when it is started", async () => {
    const id = await run();
    await world.client.tasks.pause({ containerId: id });
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a running task is in the way of a new task, a new description and a delete", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    for (const act of [
      () => world.runtime.ensureContainer(description, { fresh: false }),
      () => world.runtime.deleteContainer(id),
      () => world.runtime.deleteData(id),
    ]) {
      await assert.rejects(act(), (error) => Fault.is(error, "failed_precondition"));
    }
    await assert.rejects(world.runtime.createTask(id), (error) => Fault.is(error, "aborted"));
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("creates at the same time end in one task, from one host and from two", async () => {
    const id = await make();
    const same = await Promise.all(Array.from({ length: 4 }, () => world.runtime.createTask(id)));
    assert.equal(new Set(same).size, 1);
    await world.runtime.stopTask(id, { graceMs: 0 });

    const hosts = [world.runtime, world.newRuntime(), world.newRuntime()];
    const results = await Promise.allSettled(hosts.map((host) => host.createTask(id)));
    const { tasks } = await world.client.tasks.list({});
    assert.equal(tasks.filter((task) => task.id === id).length, 1);
    const pids = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
    assert.ok(pids.includes(tasks.find((task) => task.id === id)?.pid ?? 0), JSON.stringify(results));
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a create whose caller goes away leaves no task", async () => {
    const id = await make();
    for (const ms of [0, 5, 15, 25, 35, 45, 55, 65]) {
      const controller = new AbortController();
      setTimeout(() => {
        controller.abort(new Fault("cancelled", "the caller went"));
      }, ms);
      const result = await world.runtime.createTask(id, { signal: controller.signal }).then(
        () => "created",
        (error: unknown) => Fault.from(error).code,
      );
      assert.ok(result === "created" || result === "cancelled", result);
      assert.equal(await state(id), result === "created" ? "created" : "none", `after ${ms} ms`);
      const shims = await shimsOf(world.daemon.socket);
      assert.equal(shims.filter((shim) => shim.containerId === id).length, result === "created" ? 1 : 0);
      await world.runtime.stopTask(id, { graceMs: 0 });
    }
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    assert.equal(await state(id), "running");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a task whose record was deleted under it is taken over, stopped and deleted; its data stays", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    await world.inside(id, "echo kept > /data/file");
    await world.client.containers.delete({ id });
    assert.equal(await world.runtime.inspect(id), undefined);
    await assert.rejects(world.runtime.deleteData(id), (error) => Fault.is(error, "failed_precondition"));
    await assert.rejects(world.runtime.ensureContainer(description, { fresh: false }), (error) =>
      Fault.is(error, "failed_precondition"),
    );
    await world.runtime.stopTask(id, { graceMs: 0 });
    await world.runtime.ensureContainer(description, { fresh: false });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
    assert.equal(await world.inside(id, "cat /data/file"), "kept\n");
    await world.runtime.stopTask(id, { graceMs: 0 });
  });

  test("a container that does not exist has no task to make", async () => {
    const { id } = world.describe();
    await assert.rejects(world.runtime.createTask(id), (error) => Fault.is(error, "aborted"));
    await assert.rejects(world.runtime.startTask(id), (error) => Fault.is(error, "aborted"));
    await assert.rejects(world.runtime.updateLimits(id, {}), (error) =>
      Fault.is(error, "failed_precondition"),
    );
  });
});
