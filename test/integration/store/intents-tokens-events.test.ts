// Intents, tokens, settings and events on a real Postgres.
import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { isFault } from "../../support/fault.ts";
import { freshStore } from "../../support/postgres.ts";
import { ERROR, makeBot } from "../../support/store-rig.ts";

describe("intents", () => {
  it("go from pending over steps in order to their outcome", async () => {
    await using rig = await freshStore();
    const { intents } = rig.store;
    const botId = await makeBot(rig.store);
    const { id, state } = await intents.record({ botId, kind: "create", requestedBy: "admin" });
    assert.equal(state, "pending");
    await intents.begin(id);
    await intents.begin(id);
    for (const step of ["z", "a", "m", "a"]) await intents.stepDone(id, step);
    assert.deepEqual((await intents.get(id))?.stepsDone, ["z", "a", "m"]);
    assert.equal((await intents.get(id))?.state, "running");
    await intents.finish(id, ERROR);
    await intents.finish(id, undefined);
    const ended = await intents.get(id);
    assert.deepEqual([ended?.state, ended?.error?.code, ended?.error?.at], ["failed", ERROR.code, ERROR.at]);
    assert.ok(ended?.finishedAt instanceof Date);
    await assert.rejects(intents.begin(id), isFault("failed_precondition", /failed already/));
    await assert.rejects(intents.stepDone(randomUUID(), "x"), isFault("not_found", /no intent/));
    await assert.rejects(intents.finish("x", undefined), isFault("not_found", /no intent/));
  });

  it("with the same key of the same bot are one, also when asked at once and after the end", async () => {
    await using rig = await freshStore();
    const { intents } = rig.store;
    const botId = await makeBot(rig.store);
    const other = await makeBot(rig.store);
    const ask = async (bot: string) =>
      await intents.record({ botId: bot, kind: "start", requestedBy: "u", idempotencyKey: "k" });
    const asked = await Promise.all(Array.from({ length: 20 }, async () => await ask(botId)));
    const [first] = asked;
    assert.equal(new Set(asked.map(({ id }) => id)).size, 1);
    assert.notEqual((await ask(other)).id, first?.id);
    await intents.begin(first?.id ?? "");
    await intents.finish(first?.id ?? "", undefined);
    const later = await ask(botId);
    assert.deepEqual([later.id, later.state], [first?.id, "done"]);
    await assert.rejects(
      intents.record({ botId, kind: "stop", requestedBy: "u", idempotencyKey: "k" }),
      isFault("invalid_argument", /key was used for start/),
    );
  });

  it("without a key are one each", async () => {
    await using rig = await freshStore();
    const botId = await makeBot(rig.store);
    const ask = async () => await rig.store.intents.record({ botId, kind: "start", requestedBy: "u" });
    assert.notEqual((await ask()).id, (await ask()).id);
  });

  it("that are open come oldest first, those of a bot newest first", async () => {
    await using rig = await freshStore();
    const { intents } = rig.store;
    const a = await makeBot(rig.store);
    const b = await makeBot(rig.store);
    const ids: string[] = [];
    for (const botId of [a, b, a, b, a])
      ids.push((await intents.record({ botId, kind: "start", requestedBy: "u" })).id);
    await intents.begin(ids[3] ?? "");
    await intents.finish(ids[1] ?? "", undefined);
    await intents.finish(ids[2] ?? "", ERROR);
    assert.deepEqual(
      (await intents.open()).map(({ id }) => id),
      [ids[0], ids[3], ids[4]],
    );
    assert.deepEqual(
      (await intents.listByBot(a, 2)).map(({ id }) => id),
      [ids[4], ids[2]],
    );
  });

  it("outlive the bot: its deletion can be finished and found again, the rest has failed", async () => {
    await using rig = await freshStore();
    const { bots, intents } = rig.store;
    const botId = await makeBot(rig.store);
    const start = await intents.record({ botId, kind: "start", requestedBy: "u" });
    const remove = { botId, kind: "delete_bot", requestedBy: "u", idempotencyKey: "k" } as const;
    const { id } = await intents.record(remove);
    await intents.begin(id);
    await bots.delete(botId);
    assert.deepEqual((await intents.get(start.id))?.error?.code, "not_found");
    assert.deepEqual(
      (await intents.open()).map((open) => open.id),
      [id],
    );
    await intents.finish(id, undefined);
    assert.equal((await intents.record(remove)).state, "done");
    await assert.rejects(
      intents.record({ botId, kind: "start", requestedBy: "u" }),
      isFault("not_found", /there is no bot/),
    );
  });
});

describe("tokens", () => {
  const hashOf = (token: string) => createHash("sha256").update(token).digest();

  it("are found by hash with their bots, noted as used, and gone when deleted", async () => {
    await using rig = await freshStore();
    const { tokens } = rig.store;
    const a = await makeBot(rig.store);
    const b = await makeBot(rig.store);
    const made = await tokens.create({
      name: "ci",
      role: "guest",
      botIds: [b, a, b],
      userId: "admin",
      hash: hashOf("t"),
    });
    assert.deepEqual(
      [made.name, made.role, made.userId, made.botIds],
      ["ci", "guest", "admin", [a, b].sort()],
    );
    assert.equal(made.lastUsedAt, undefined);
    assert.deepEqual(await tokens.findByHash(hashOf("t")), made);
    assert.ok((await tokens.list())[0]?.lastUsedAt instanceof Date);
    assert.equal(await tokens.findByHash(hashOf("other")), undefined);
    await rig.store.bots.delete(a);
    assert.deepEqual((await tokens.findByHash(hashOf("t")))?.botIds, [b]);
    assert.equal(await tokens.delete(made.id), true);
    assert.equal(await tokens.delete(made.id), false);
    assert.equal(await tokens.delete("x"), false);
    assert.equal(await tokens.findByHash(hashOf("t")), undefined);
  });

  it("name bots and users that exist, and are made whole or not at all", async () => {
    await using rig = await freshStore();
    const { tokens } = rig.store;
    await makeBot(rig.store);
    const common = { name: "x", role: "owner", userId: "admin", hash: hashOf("t") } as const;
    await assert.rejects(
      tokens.create({ ...common, botIds: [randomUUID()] }),
      isFault("failed_precondition", /names a bot that does not exist/),
    );
    await assert.rejects(
      tokens.create({ ...common, botIds: [], userId: "nobody" }),
      isFault("failed_precondition", /nobody is not a known user/),
    );
    await assert.rejects(
      tokens.create({ ...common, botIds: [], hash: Buffer.from("the token itself") }),
      isFault("invalid_argument", /32 bytes/),
    );
    assert.deepEqual(await tokens.list(), []);
  });
});

describe("settings", () => {
  it("keep the first value, also when set at once", async () => {
    await using rig = await freshStore();
    const { settings } = rig.store;
    assert.equal(await settings.get("k"), undefined);
    const stand = await Promise.all(
      Array.from({ length: 20 }, async (_, n) => await settings.setOnce("k", `v${n}`)),
    );
    assert.equal(new Set(stand).size, 1);
    assert.equal(await settings.get("k"), stand[0]);
    assert.equal(await settings.setOnce("k", "later"), stand[0]);
  });
});

describe("events", () => {
  it("come newest first with what they carried, however odd", async () => {
    await using rig = await freshStore();
    const botId = await makeBot(rig.store);
    const { events } = rig.store;
    for (let n = 0; n < 5; n++)
      await events.add({ botId, containerId: "c", type: `t${n}`, payload: { n, text: "a\0'\\" } });
    const found = await events.list(botId, 3);
    assert.deepEqual(
      found.map(({ type, payload }) => [type, payload["n"], payload["text"]]),
      [4, 3, 2].map((n) => [`t${n}`, n, "a\uFFFD'\\"]),
    );
    assert.match(found[0]?.id ?? "", /^c-\d{19}$/);
    assert.ok(found[0]?.at instanceof Date);
  });

  it("added at once are all kept", async () => {
    await using rig = await freshStore();
    const botId = await makeBot(rig.store);
    await Promise.all(
      Array.from(
        { length: 50 },
        async () => await rig.store.events.add({ botId, containerId: "c", type: "t", payload: {} }),
      ),
    );
    assert.equal((await rig.store.events.list(botId, 100)).length, 50);
  });
});
