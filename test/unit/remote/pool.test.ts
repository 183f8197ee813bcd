// The pool: one checked connection per bot, given up whenever something about the bot changes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import type { Endpoint } from "../../../src/remote/dial.ts";
import { staticProvider } from "../../../src/remote/provider.ts";
import { type AgentHandlers, BOT, fakeAgent, OTHER_BOT } from "../../support/fake-agent.ts";
import { faultOf, gather, until } from "../../support/pieces.ts";
import { at, marked, markOf, poolOf } from "./pools.ts";

test("callers at the same time share one connection and one Hello", async () => {
  await using agent = await fakeAgent(marked(1));
  await using pool = poolOf(new Map([at(agent)]));
  const marks = await Promise.all(
    Array.from({ length: 20 }, async () => await markOf(await pool.workspace(BOT))),
  );
  assert.deepEqual(new Set(marks), new Set([1]));
  assert.equal(agent.hellos(), 1);
  assert.equal(pool.size, 1);
});

test("a caller that stops waiting does not take the others' attempt away", async () => {
  const gate = Promise.withResolvers<void>();
  await using agent = await fakeAgent({
    hello: async () => {
      await gate.promise;
      return { botId: BOT, bootId: "boot-1" };
    },
  });
  await using pool = poolOf(new Map([at(agent)]));
  const controller = new AbortController();
  const impatient = pool.workspace(BOT, { signal: controller.signal });
  const patient = pool.workspace(BOT);
  controller.abort(new Fault("cancelled", "enough"));
  await faultOf(impatient, "cancelled");
  gate.resolve();
  await patient;
});

test("an agent of another bot is refused with both named, and no call reaches it", async () => {
  let calls = 0;
  const handlers: AgentHandlers = {
    health: async () => {
      calls++;
      return await Promise.resolve({});
    },
  };
  await using agent = await fakeAgent(handlers, { botId: OTHER_BOT });
  await using pool = poolOf(new Map([at(agent)]));
  const fault = await faultOf(pool.workspace(BOT), "failed_precondition");
  assert.match(fault.message, new RegExp(`${OTHER_BOT}.*${BOT}`));
  assert.ok(fault.hint !== undefined);
  assert.equal(pool.size, 0);
  assert.equal(calls, 0);
});

test("an agent of an earlier boot is refused with both named", async () => {
  await using agent = await fakeAgent({}, { bootId: "boot-1" });
  await using pool = poolOf(new Map([at(agent, "boot-2")]));
  const fault = await faultOf(pool.workspace(BOT), "failed_precondition");
  assert.match(fault.message, /boot-1.*boot-2/);
  assert.equal(pool.size, 0);
});

test("a failed attempt is forgotten: the next caller tries again", async () => {
  const where = new Map<string, Endpoint>();
  await using pool = poolOf(where);
  await faultOf(pool.workspace(BOT), "failed_precondition");
  await using agent = await fakeAgent(marked(1));
  where.set(...at(agent));
  assert.equal(await markOf(await pool.workspace(BOT)), 1);
});

test("after an eviction old streams end with unavailable and new calls reach the new agent, through the same handle", async () => {
  await using old = await fakeAgent(marked(1));
  await using next = await fakeAgent(marked(2), { bootId: "boot-2" });
  const where = new Map([at(old)]);
  await using pool = poolOf(where);
  const workspace = await pool.workspace(BOT);
  assert.equal(await markOf(workspace), 1);
  const stream = (await workspace.readRaw("x"))[Symbol.asyncIterator]();
  await stream.next();
  const pending = stream.next();
  where.set(...at(next, "boot-2"));
  pool.evict(BOT, "the bot was restarted");
  const fault = await faultOf(pending, "unavailable");
  assert.match(fault.message, /the bot was restarted/);
  assert.equal(await markOf(workspace), 2);
});

test("a stopped bot is no longer reached through a handle from before", async () => {
  await using agent = await fakeAgent(marked(1));
  const where = new Map([at(agent)]);
  await using pool = poolOf(where);
  const workspace = await pool.workspace(BOT);
  where.delete(BOT);
  pool.evict(BOT);
  await faultOf(workspace.health(), "failed_precondition");
  assert.equal(pool.size, 0);
});

test("an eviction in the middle of connecting sends the waiting callers to the new address", async () => {
  const gate = Promise.withResolvers<void>();
  let asked = 0;
  await using old = await fakeAgent({
    hello: async (_, { signal }) => {
      asked++;
      await Promise.race([gate.promise, sleep(60_000, signal)]);
      return { botId: BOT, bootId: "boot-1" };
    },
    ...marked(1),
  });
  await using next = await fakeAgent(marked(2));
  const where = new Map([at(old)]);
  await using pool = poolOf(where);
  const waiting = [pool.workspace(BOT), pool.workspace(BOT)];
  await until("the old agent is asked", () => asked === 1);
  where.set(...at(next));
  pool.evict(BOT);
  gate.resolve();
  for (const workspace of waiting) assert.equal(await markOf(await workspace), 2);
});

test("ready waits for an agent that is still starting", async () => {
  const probe = await fakeAgent();
  await probe[Symbol.asyncDispose]();
  const endpoint = { botId: BOT, bootId: "boot-1", target: probe.target };
  await using pool = poolOf(new Map([[BOT, endpoint]]));
  const ready = pool.ready(BOT, { timeoutMs: 10_000 });
  await sleep(60);
  await using _agent = await fakeAgent(marked(3), { port: probe.port });
  assert.equal(await markOf(await ready), 3);
});

test("ready gives up with the reason, and at once when somebody else answers", async () => {
  const probe = await fakeAgent();
  await probe[Symbol.asyncDispose]();
  const where = new Map<string, Endpoint>([[BOT, { botId: BOT, bootId: "boot-1", target: probe.target }]]);
  await using pool = poolOf(where);
  const fault = await faultOf(pool.ready(BOT, { timeoutMs: 1_000 }), "deadline_exceeded");
  assert.match(fault.message, /connection refused/);
  await using other = await fakeAgent({}, { botId: OTHER_BOT });
  where.set(...at(other));
  await faultOf(pool.ready(BOT, { timeoutMs: 60_000 }), "failed_precondition");
});

test("bots do not wait for each other", async () => {
  await using stuck = await fakeAgent({
    hello: async (_, { signal }) => {
      await sleep(60_000, signal);
      return {};
    },
  });
  await using agent = await fakeAgent(marked(2), { botId: OTHER_BOT });
  await using pool = poolOf(new Map([at(stuck), at(agent, "boot-1", OTHER_BOT)]));
  const waiting = pool.workspace(BOT);
  assert.equal(await markOf(await pool.workspace(OTHER_BOT)), 2);
  pool.evict(BOT);
  await pool[Symbol.asyncDispose]();
  await faultOf(waiting, "unavailable");
});

test("an attempt that takes too long is a deadline and leaves nothing behind", async () => {
  await using agent = await fakeAgent({
    hello: async (_, { signal }) => {
      await sleep(60_000, signal);
      return {};
    },
  });
  await using pool = poolOf(new Map([at(agent)]), { dialMs: 100 });
  const fault = await faultOf(pool.workspace(BOT));
  assert.ok(["deadline_exceeded", "unavailable"].includes(fault.code), fault.code);
  assert.equal(pool.size, 0);
});

test("a closed pool ends what runs, refuses what comes and holds nothing", async () => {
  await using agent = await fakeAgent(marked(1));
  const pool = poolOf(new Map([at(agent)]));
  const workspace = await pool.workspace(BOT);
  const reading = gather(await workspace.readRaw("x"));
  await pool[Symbol.asyncDispose]();
  await faultOf(reading, "unavailable");
  await faultOf(workspace.health(), "unavailable");
  await faultOf(pool.workspace(BOT), "unavailable");
  assert.equal(pool.size, 0);
});

test("a thousand bots that come and go leave nothing in the pool", async () => {
  await using agent = await fakeAgent();
  const where = new Map([at(agent)]);
  await using pool = poolOf(where);
  for (let i = 0; i < 1000; i++) await faultOf(pool.workspace(`gone-${i}`), "failed_precondition");
  await pool.workspace(BOT);
  pool.evict(BOT);
  for (let i = 0; i < 1000; i++) pool.evict(`gone-${i}`);
  assert.equal(pool.size, 0);
});

test("calls under a storm of evictions either work or say that the connection went", async () => {
  await using agent = await fakeAgent(marked(1));
  await using pool = poolOf(new Map([at(agent)]));
  const workspace = await pool.workspace(BOT);
  let worked = 0;
  const storm = (async () => {
    for (let i = 0; i < 50; i++) {
      pool.evict(BOT);
      await sleep(1);
    }
  })();
  const callers = Array.from({ length: 8 }, async () => {
    for (let i = 0; i < 30; i++) {
      try {
        worked += await markOf(workspace);
      } catch (error) {
        assert.ok(Fault.is(error, "unavailable"), String(error));
      }
    }
  });
  await Promise.all([storm, ...callers]);
  assert.ok(worked > 0);
  assert.equal(await markOf(workspace), 1);
});

test("a static provider gives what it was given and nothing else", async () => {
  await using agent = await fakeAgent(marked(5));
  await using pool = poolOf(new Map([at(agent)]));
  const provider = staticProvider([[BOT, await pool.workspace(BOT)]]);
  assert.equal(await markOf(await provider.workspace(BOT)), 5);
  await faultOf(provider.workspace(OTHER_BOT), "not_found");
});
