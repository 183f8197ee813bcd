// Events of tasks: what happened, in order, and a word when something may have been missed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Runtime, RuntimeEvent } from "../../../src/core/runtime.ts";
import { TaskDeleteSchema } from "../../../src/gen/proto/containerd/task_events_pb.ts";
import { abortable, withDeadline } from "../../../src/lib/signal.ts";
import type { ContainerdVersion } from "../../support/containerd-debs.ts";
import { startWorld } from "./world.ts";

/** Events of a runtime one by one, each within a deadline; ends them when disposed. */
function follow(runtime: Runtime) {
  const controller = new AbortController();
  const events = runtime.events(controller.signal);
  const iterator = events[Symbol.asyncIterator]();
  return {
    next: async (): Promise<RuntimeEvent> => {
      using limit = withDeadline(undefined, 20_000, "the next event");
      const result = await abortable(iterator.next(), limit.signal);
      if (result.done === true) throw new Error("the events ended");
      return result.value;
    },
    end: async () => {
      controller.abort();
      // What was already on its way may still come.
      for await (const event of events) assert.equal(event.kind, "delete");
    },
    [Symbol.dispose]() {
      controller.abort();
    },
  };
}

const VERSIONS: readonly ContainerdVersion[] = ["installed", "1.7", "2"];

for (const version of VERSIONS) {
  test(`starts, ends and out-of-memory kills are told, and a restart of containerd ${version} asks to look again`, async () => {
    await using world = await startWorld({ version });
    const { runtime } = world;
    using events = follow(runtime);
    const { next } = events;
    assert.deepEqual(await next(), { kind: "resync" });

    const description = world.describe();
    const { id } = description;
    await runtime.ensureContainer(description, { fresh: true });
    await runtime.createTask(id);
    await runtime.startTask(id);
    const pid = (await runtime.inspect(id))?.pid;
    assert.deepEqual(await next(), { kind: "start", containerId: id, pid });
    // An exec's own end is nobody's business; the kill of its greedy process is.
    await world.inside(id, "true");
    await world.inside(id, "tail /dev/zero");
    assert.deepEqual(await next(), { kind: "oom", containerId: id });

    await world.daemon.kill();
    await world.daemon.restart();
    let event = await next();
    // The kernel may tell of one shortage more than once.
    while (event.kind === "oom") event = await next();
    assert.deepEqual(event, { kind: "resync" });

    await runtime.stopTask(id, { graceMs: 5_000 });
    const exit = await next();
    assert.ok(exit.kind === "exit" && exit.containerId === id && exit.exitStatus === 7, JSON.stringify(exit));
    assert.ok(Math.abs(exit.at.getTime() - Date.now()) < 60_000);

    await events.end();
  });
}

test("deletes are told, ends of processes beside init and events of other namespaces are not", async () => {
  await using world = await startWorld();
  await using other = world.daemon.client(`${world.daemon.namespace}-other`);
  using events = follow(world.runtime);
  const { next } = events;
  assert.deepEqual(await next(), { kind: "resync" });
  const deleted = (id: string) => ({
    topic: "/tasks/delete",
    event: {
      typeUrl: "containerd.events.TaskDelete",
      value: toBinary(TaskDeleteSchema, create(TaskDeleteSchema, { containerId: "x", id })),
    },
  });
  await other.events.publish(deleted("x"));
  await world.client.events.publish(deleted("an-exec"));
  await world.client.events.publish({
    topic: "/tasks/oom",
    event: { typeUrl: "x", value: new Uint8Array([10, 1, 121]) },
  });
  await world.client.events.publish(deleted("x"));
  await world.client.events.publish(deleted(""));
  assert.deepEqual(await next(), { kind: "oom", containerId: "y" });
  assert.deepEqual(await next(), { kind: "delete", containerId: "x" });
  assert.deepEqual(await next(), { kind: "delete", containerId: "x" });
});
