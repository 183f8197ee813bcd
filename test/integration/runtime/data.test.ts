// A container's data: adopted, never removed by anything but its own delete, never replaced by an empty one.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { startWorld, type World } from "./world.ts";

const snapshotter = "overlayfs";

describe("data", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(async () => {
    await world[Symbol.asyncDispose]();
  });

  const run = async (id: string) => {
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
  };
  const stop = async (id: string) => {
    await world.runtime.stopTask(id, { graceMs: 0 });
  };
  const exists = async (key: string) =>
    await world.client.snapshots.stat({ snapshotter, key }).then(
      () => true,
      (error: unknown) => {
        if (Fault.is(error, "not_found")) return false;
        throw error;
      },
    );
  /** Runs the garbage collector to its end. */
  const collect = async () => {
    await world.client.leases.create({ id: "gc" });
    await world.client.leases.delete({ id: "gc", sync: true });
  };

  test("an orphan snapshot is adopted with its files, also when a fresh container is asked for", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await run(id);
    await world.inside(id, "echo kept > /data/file");
    await stop(id);
    await world.runtime.deleteContainer(id);
    await collect();
    assert.equal(await exists(id), true);
    const again = await world.runtime.ensureContainer(description, { fresh: true });
    assert.equal(again.snapshotKey, id);
    await run(id);
    assert.equal(await world.inside(id, "cat /data/file"), "kept\n");
    await stop(id);
  });

  test("an orphan of the original, without labels and under another key, is adopted and safe from the collector", async () => {
    const description = world.describe();
    const { id } = description;
    // The original labels nothing; a lease stands in for the container that kept it.
    await world.client.leases.create({ id: "original" });
    const original = world.client.leased("original");
    for (const time of ["1700000000000000001", "1700000000000000002"]) {
      await original.snapshots.prepare({ snapshotter, key: `${id}-active-${time}`, parent: "" });
    }
    const made = await world.runtime.ensureContainer(description, { fresh: true });
    assert.equal(made.snapshotKey, `${id}-active-1700000000000000002`);
    await world.client.leases.delete({ id: "original", sync: true });
    await world.runtime.deleteContainer(id);
    await collect();
    assert.equal(await exists(made.snapshotKey), true);
    assert.equal(await exists(`${id}-active-1700000000000000001`), true);
    await world.runtime.deleteData(id);
    assert.equal(await exists(made.snapshotKey), false);
    assert.equal(await exists(`${id}-active-1700000000000000001`), false);
  });

  test("data that is gone is a named loss, unless a fresh container is asked for", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.client.snapshots.remove({ snapshotter, key: id });
    assert.equal((await world.runtime.inspect(id))?.snapshotExists, false);
    await assert.rejects(world.runtime.createTask(id), (error) => Fault.is(error, "data_loss"));
    await assert.rejects(world.runtime.ensureContainer(description, { fresh: false }), (error) =>
      Fault.is(error, "data_loss"),
    );
    const made = await world.runtime.ensureContainer(description, { fresh: true });
    assert.equal(made.snapshotExists, true);
    await assert.rejects(world.runtime.ensureContainer(world.describe(), { fresh: false }), (error) =>
      Fault.is(error, "data_loss"),
    );
  });

  test("a snapshot of the container's name that is not writable is refused and left alone", async () => {
    const description = world.describe();
    const { id } = description;
    const labels = { "containerd.io/gc.root": "1" };
    await world.client.snapshots.prepare({ snapshotter, key: `${id}-x`, labels });
    await world.client.snapshots.commit({ snapshotter, key: `${id}-x`, name: id, labels });
    await assert.rejects(world.runtime.ensureContainer(description, { fresh: true }), (error) =>
      Fault.is(error, "failed_precondition"),
    );
    await world.runtime.deleteData(id);
    assert.equal(await exists(id), true);
  });

  test("data is not removed while a container uses it", async () => {
    const description = world.describe();
    const { id } = description;
    await world.runtime.ensureContainer(description, { fresh: true });
    await assert.rejects(world.runtime.deleteData(id), (error) => Fault.is(error, "failed_precondition"));
    assert.equal(await exists(id), true);
    await world.runtime.deleteContainer(id);
    await world.runtime.deleteData(id);
    assert.equal(await exists(id), false);
  });

  test("a new description changes the record, the same one writes nothing, labels of others stay", async () => {
    const description = world.describe();
    const { id } = description;
    const first = await world.runtime.ensureContainer(description, { fresh: true });
    const same = await world.runtime.ensureContainer(description, { fresh: true });
    assert.deepEqual(same.updatedAt, first.updatedAt);
    await world.client.containers.update({
      container: { id, labels: { "mcp.bot_id": description.botId, other: "stays" } },
      updateMask: { paths: ["labels"] },
    });
    await world.runtime.ensureContainer({ ...description, hostname: "renamed" }, { fresh: false });
    const { container } = await world.client.containers.get({ id });
    assert.equal(container?.labels["other"], "stays");
    await run(id);
    assert.equal(await world.inside(id, "hostname"), "renamed\n");
    await stop(id);
  });

  test("an image that is not there is not found and leaves nothing", async () => {
    const description = world.describe({ image: "localhost/none:1" });
    await assert.rejects(world.runtime.ensureContainer(description, { fresh: true }), (error) =>
      Fault.is(error, "not_found"),
    );
    assert.equal(await world.runtime.inspect(description.id), undefined);
    assert.equal(await exists(description.id), false);
    assert.deepEqual((await world.client.leases.list({})).leases, []);
  });

  test("an image whose snapshots were collected is unpacked again", async () => {
    await world.runtime.ensureContainer(world.describe(), { fresh: true });
    const all = await world.runtime.list();
    for (const { id } of all) {
      await world.runtime.deleteContainer(id);
      await world.runtime.deleteData(id);
    }
    await world.client.snapshots.remove({ snapshotter, key: world.parent });
    const made = await world.runtime.ensureContainer(world.describe(), { fresh: true });
    assert.equal(made.snapshotExists, true);
    assert.equal(await exists(world.parent), true);
  });

  test("ensures at the same time end in one container on one snapshot", async () => {
    const description = world.describe();
    const hosts = [world.runtime, world.runtime, world.newRuntime()];
    const made = await Promise.all(hosts.map((host) => host.ensureContainer(description, { fresh: true })));
    assert.deepEqual(new Set(made.map((each) => each.snapshotKey)), new Set([description.id]));
  });
});
