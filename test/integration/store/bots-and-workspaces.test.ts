// Bots and workspaces on a real Postgres.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { isFault } from "../../support/fault.ts";
import { execute, freshStore } from "../../support/postgres.ts";
import { ERROR, makeBot, makeWorkspace } from "../../support/store-rig.ts";

describe("bots", () => {
  it("are found by id and name, listed by name, and gone when deleted", async () => {
    await using rig = await freshStore();
    const { bots } = rig.store;
    const b = await makeBot(rig.store, "b");
    const a = await makeBot(rig.store, "a");
    assert.deepEqual((await bots.get(a))?.name, "a");
    assert.deepEqual((await bots.getByName("b"))?.id, b);
    assert.deepEqual(
      (await bots.list()).map(({ name, ownerId }) => [name, ownerId]),
      [
        ["a", "admin"],
        ["b", "admin"],
      ],
    );
    await bots.delete(a);
    await bots.delete(a);
    assert.equal(await bots.get(a), undefined);
    assert.deepEqual((await bots.list()).length, 1);
  });

  it("have unique names, also when made at once", async () => {
    await using rig = await freshStore();
    await rig.store.ensureUser({ id: "admin", name: "admin", role: "admin" });
    const tries = await Promise.allSettled(
      Array.from(
        { length: 8 },
        async () => await rig.store.bots.create({ id: randomUUID(), name: "same", ownerId: "admin" }),
      ),
    );
    assert.equal(tries.filter(({ status }) => status === "fulfilled").length, 1);
    for (const result of tries) {
      if (result.status === "rejected")
        isFault("already_exists", /Cannot create the bot same: the name is taken/)(result.reason);
    }
  });

  it("need an owner that is known, by UUID or by another system's id", async () => {
    await using rig = await freshStore();
    const { store } = rig;
    const user = randomUUID();
    await store.ensureUser({ id: user, name: "u", role: "owner" });
    await store.ensureUser({ id: "auth0|x", name: "u", role: "owner" });
    await store.ensureUser({ id: "auth0|x", name: "renamed", role: "guest" });
    for (const ownerId of [user, "auth0|x"]) {
      const id = randomUUID();
      assert.equal((await store.bots.create({ id, name: `n-${id}`, ownerId })).ownerId, ownerId);
      assert.equal((await store.bots.get(id))?.ownerId, ownerId);
    }
    const [row] = await execute(rig.target, "select name, role from users where external_id = 'auth0|x'");
    assert.deepEqual(row, { name: "u", role: "owner" });
    await assert.rejects(
      store.bots.create({ id: randomUUID(), name: "x", ownerId: "nobody" }),
      isFault("failed_precondition", /nobody is not a known user/),
    );
  });

  it("with ids and names that cannot exist are unknown, not errors", async () => {
    await using rig = await freshStore();
    const { bots, workspaces, intents, events } = rig.store;
    for (const odd of ["", "x", "'; drop table bots; --", "a\0b", "A0000000-0000-0000-0000-000000000000"]) {
      assert.equal(await bots.get(odd), undefined);
      assert.equal(await bots.getByName(odd), undefined);
      assert.equal(await workspaces.get(odd), undefined);
      assert.equal(await intents.get(odd), undefined);
      assert.deepEqual(await intents.listByBot(odd, 5), []);
      assert.deepEqual(await events.list(odd, 5), []);
      await bots.delete(odd);
    }
  });
});

describe("workspaces", () => {
  it("are made once, with the original's containers row in the right namespace", async () => {
    await using rig = await freshStore({ namespace: "here" });
    const { workspaces } = rig.store;
    const botId = await makeWorkspace(rig.store);
    const first = await workspaces.get(botId);
    assert.deepEqual(
      [first?.desired, first?.generation, first?.phase, first?.limits, first?.readyOnce, first?.lastError],
      ["running", 1, "pending", { memory: 5, cpus: 0.5 }, false, undefined],
    );
    const again = await workspaces.create({
      botId,
      containerId: "other",
      image: "y",
      limits: {},
      desired: "stopped",
    });
    assert.deepEqual(again, first);
    assert.deepEqual(await workspaces.getByContainer(`mcp-${botId}`), first);
    assert.deepEqual(
      await execute(
        rig.target,
        "select container_id, container_name, image, status, namespace, container_path, auto_start, last_started_at from containers",
      ),
      [
        {
          containerId: `mcp-${botId}`,
          containerName: `mcp-${botId}`,
          image: "docker.io/library/x:1",
          status: "created",
          namespace: "here",
          containerPath: "/data",
          autoStart: true,
          lastStartedAt: null,
        },
      ],
    );
  });

  it("made at once are one", async () => {
    await using rig = await freshStore();
    const botId = await makeBot(rig.store);
    const made = await Promise.all(
      Array.from(
        { length: 8 },
        async (_, n) =>
          await rig.store.workspaces.create({
            botId,
            containerId: `mcp-${botId}`,
            image: `i${n}`,
            limits: {},
            desired: "running",
          }),
      ),
    );
    assert.equal(new Set(made.map(({ image }) => image)).size, 1);
  });

  it("cannot take another bot's container, nor be of a bot that does not exist", async () => {
    await using rig = await freshStore();
    const { workspaces } = rig.store;
    const taken = `mcp-${await makeWorkspace(rig.store)}`;
    const botId = await makeBot(rig.store);
    const common = { containerId: taken, image: "x", limits: {}, desired: "running" } as const;
    await assert.rejects(
      workspaces.create({ botId, ...common }),
      isFault("already_exists", /belongs to another bot/),
    );
    assert.equal(await workspaces.get(botId), undefined);
    await execute(rig.target, "delete from workspaces");
    const before = await execute(rig.target, "select * from containers");
    await assert.rejects(
      workspaces.create({ botId, ...common }),
      isFault("already_exists", /belongs to another bot/),
    );
    assert.deepEqual(await execute(rig.target, "select * from containers"), before);
    await assert.rejects(
      workspaces.create({ ...common, botId: randomUUID(), containerId: "new" }),
      isFault("failed_precondition", /there is no such bot/),
    );
    await assert.rejects(workspaces.desire(botId, "stopped"), isFault("not_found", /no workspace/));
    await assert.rejects(workspaces.observe("x", {}), isFault("not_found", /no workspace/));
  });

  it("adopt a containers row that the original left, and leave it as it was", async () => {
    await using rig = await freshStore();
    const botId = await makeBot(rig.store);
    await execute(
      rig.target,
      `insert into containers (bot_id, container_id, container_name, image, status, namespace, last_started_at)
       values ('${botId}', 'old', 'old', 'theirs', 'running', 'default', now())`,
    );
    const before = await execute(rig.target, "select * from containers");
    await rig.store.workspaces.create({
      botId,
      containerId: "old",
      image: "ours",
      limits: {},
      desired: "running",
    });
    assert.deepEqual(await execute(rig.target, "select * from containers"), before);
  });

  it("count every change of what is desired", async () => {
    await using rig = await freshStore();
    const { workspaces } = rig.store;
    const botId = await makeWorkspace(rig.store);
    assert.deepEqual((await workspaces.desire(botId, "stopped")).generation, 2);
    assert.deepEqual(await execute(rig.target, "select auto_start from containers"), [{ autoStart: false }]);
    const limited = await workspaces.setLimits(botId, { pids: 7 });
    assert.deepEqual([limited.generation, limited.limits, limited.desired], [3, { pids: 7 }, "stopped"]);
    await Promise.all(Array.from({ length: 10 }, async () => await workspaces.desire(botId, "running")));
    assert.equal((await workspaces.get(botId))?.generation, 13);
  });

  it("change only the observed fields that a patch names", async () => {
    await using rig = await freshStore();
    const { workspaces } = rig.store;
    const botId = await makeWorkspace(rig.store);
    const full = await workspaces.observe(botId, {
      phase: "running",
      snapshotKey: "s",
      ip: "10.0.0.2",
      netnsPath: "/n",
      bootId: "b",
      readyOnce: true,
      lastError: ERROR,
      attempts: 3,
      nextAttemptAt: new Date("2026-05-05T05:05:05.005Z"),
    });
    assert.deepEqual(full.lastError, { ...ERROR, message: "no answer \uFFFD \uFFFD" });
    for (const [patch, expected] of [
      [{}, {}],
      [{ ip: null }, { ip: undefined }],
      [{ phase: "stopping" }, { phase: "stopping" }],
      [
        { lastError: null, attempts: 0 },
        { lastError: undefined, attempts: 0 },
      ],
      [
        { bootId: null, nextAttemptAt: null },
        { bootId: undefined, nextAttemptAt: undefined },
      ],
      [
        { snapshotKey: null, netnsPath: null },
        { snapshotKey: undefined, netnsPath: undefined },
      ],
    ] as const) {
      const before = await workspaces.get(botId);
      const after = await workspaces.observe(botId, patch);
      assert.deepEqual({ ...after, updatedAt: 0 }, { ...before, ...expected, updatedAt: 0 });
    }
  });

  it("keep the original's row in step: status with its times, and nothing else", async () => {
    await using rig = await freshStore();
    const { workspaces } = rig.store;
    const botId = await makeWorkspace(rig.store);
    const row = async () => {
      const [found] = await execute<Record<string, unknown>>(rig.target, "select * from containers");
      return found ?? {};
    };
    const rest = (found: Record<string, unknown>) => [
      found["image"],
      found["containerPath"],
      found["namespace"],
      found["autoStart"],
    ];
    const first = await row();
    const statuses: unknown[] = [];
    const started: unknown[] = [];
    const stopped: unknown[] = [];
    for (const phase of [
      "creating",
      "starting",
      "running",
      "running",
      "stopping",
      "stopped",
      "stopped",
      "starting",
      "running",
      "failed",
    ] as const) {
      await workspaces.observe(botId, { phase });
      const found = await row();
      statuses.push(found["status"]);
      started.push(found["lastStartedAt"]);
      stopped.push(found["lastStoppedAt"]);
      assert.deepEqual(rest(found), rest(first));
    }
    assert.deepEqual(statuses, [
      "created",
      "created",
      "running",
      "running",
      "running",
      "stopped",
      "stopped",
      "stopped",
      "running",
      "error",
    ]);
    assert.deepEqual([started[1], started[2] === null], [null, false]);
    assert.deepEqual(started[3], started[2], "seen running again is not started again");
    assert.deepEqual(stopped[4], null);
    assert.deepEqual(stopped[6], stopped[5]);
    assert.notDeepEqual(started[8], started[3]);
    assert.deepEqual([started[9], stopped[9]], [started[8], stopped[6]]);
  });

  it("go with their containers row, and events stay", async () => {
    await using rig = await freshStore();
    const { store } = rig;
    const botId = await makeWorkspace(store);
    await store.events.add({ botId, containerId: `mcp-${botId}`, type: "made", payload: {} });
    await store.workspaces.delete(botId);
    await store.workspaces.delete(botId);
    assert.equal(await store.workspaces.get(botId), undefined);
    assert.deepEqual(await execute(rig.target, "select 1 as one from containers"), []);
    assert.notEqual(await store.bots.get(botId), undefined);
    await store.bots.delete(botId);
    assert.deepEqual(
      (await store.events.list(botId, 5)).map(({ type }) => type),
      ["made"],
    );
  });
});
