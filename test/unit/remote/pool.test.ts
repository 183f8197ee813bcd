// The pool: one checked connection per bot, given up whenever something about the bot changes.
import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import type { Wait, Workspace } from "../../../src/core/workspace.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { type Address, Addresses } from "../../../src/remote/addresses.ts";
import type { Endpoint } from "../../../src/remote/dial.ts";
import { Pool, type PoolOptions } from "../../../src/remote/pool.ts";
import { staticProvider } from "../../../src/remote/provider.ts";
import { type AgentHandlers, BOT, type FakeAgent, fakeAgent, OTHER_BOT } from "../../support/fake-agent.ts";
import { faultOf, gather, until } from "../../support/pieces.ts";

/** A pool whose endpoints are looked up in `where`. */
function poolOf(where: Map<string, Endpoint>, options: Partial<PoolOptions> = {}): Pool {
  return new Pool({
    log: silentLogger(),
    endpoints: (botId) => {
      const endpoint = where.get(botId);
      if (endpoint !== undefined) return Promise.resolve(endpoint);
      return Promise.reject(new Fault("failed_precondition", `Bot ${botId} does not run`));
    },
    ...options,
  });
}

function at(agent: FakeAgent, bootId = "boot-1", botId = BOT): [string, Endpoint] {
  return [botId, { botId, bootId, target: agent.target }];
}

/** Handlers that answer Health with a number of their own and never end a read. */
function marked(mark: number): AgentHandlers {
  return {
    health: async () => await Promise.resolve({ processes: mark }),
    async *readRaw(_, { signal }) {
      yield { data: Buffer.from("first") };
      await sleep(60_000, signal);
    },
  };
}

async function markOf(workspace: Workspace): Promise<number> {
  return (await workspace.health()).processes;
}

/** A TCP proxy whose two ends of every connection can be broken. */
async function proxyTo(port: number): Promise<AsyncDisposable & { target: string; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const up = connect(port, "127.0.0.1");
    sockets.push(socket, up);
    for (const end of [socket, up]) end.on("error", () => undefined);
    socket.pipe(up);
    up.pipe(socket);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return {
    target: `127.0.0.1:${address.port}`,
    sockets,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      await closed.promise;
    },
  };
}

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

test("a connection that is lost is given up at once, and the agent that comes back is asked again who it is", async () => {
  const first = await fakeAgent(marked(1));
  await using pool = poolOf(new Map([at(first)]));
  const workspace = await pool.workspace(BOT);
  await first[Symbol.asyncDispose]();
  await until("the loss is noticed", () => pool.size === 0);
  await faultOf(workspace.health(), "unavailable");
  await using second = await fakeAgent(marked(2), { port: first.port });
  assert.equal(await markOf(workspace), 2);
  assert.equal(second.hellos(), 1);
});

test("an agent of another boot that takes the address over is not talked to on the old connection's credit", async () => {
  const first = await fakeAgent(marked(1));
  await using pool = poolOf(new Map([at(first)]));
  const workspace = await pool.workspace(BOT);
  await first[Symbol.asyncDispose]();
  await using _other = await fakeAgent(marked(2), { port: first.port, bootId: "boot-9" });
  const fault = await faultOf(workspace.health(), "failed_precondition", "unavailable");
  if (fault.code === "unavailable") await faultOf(workspace.health(), "failed_precondition");
});

for (const [how, cut] of [
  ["resets the connection", (socket: Socket) => socket.resetAndDestroy()],
  ["closes the connection", (socket: Socket) => socket.destroy()],
  ["falls silent", (socket: Socket) => socket.unpipe().pause()],
] as const) {
  test(`a peer that ${how} under a call ends it and is given up`, async () => {
    await using agent = await fakeAgent(marked(1));
    await using proxy = await proxyTo(agent.port);
    const endpoint = { botId: BOT, bootId: "boot-1", target: proxy.target };
    const keepalive = { everyMs: 100, timeoutMs: 100 };
    await using pool = poolOf(new Map([[BOT, endpoint]]), { keepalive });
    const workspace = await pool.workspace(BOT);
    const reading = gather(await workspace.readRaw("x"));
    for (const socket of proxy.sockets) cut(socket);
    await faultOf(reading, "unavailable");
    await until("the connection is given up", () => pool.size === 0);
  });
}

test("an agent that fell silent while nobody called is given up too", async () => {
  await using agent = await fakeAgent();
  await using proxy = await proxyTo(agent.port);
  const endpoint = { botId: BOT, bootId: "boot-1", target: proxy.target };
  await using pool = poolOf(new Map([[BOT, endpoint]]), { keepalive: { everyMs: 100, timeoutMs: 100 } });
  await pool.workspace(BOT);
  for (const socket of proxy.sockets) socket.unpipe().pause();
  await until("the connection is given up", () => pool.size === 0);
});

test("an idle connection closes by itself, a busy one does not", async () => {
  await using agent = await fakeAgent(marked(1));
  await using pool = poolOf(new Map([at(agent)]), { idleMs: 40 });
  const workspace = await pool.workspace(BOT);
  const stream = (await workspace.readRaw("x"))[Symbol.asyncIterator]();
  await stream.next();
  await sleep(150);
  assert.equal(pool.size, 1, "a stream is open");
  await stream.return?.();
  await until("it closes", () => pool.size === 0);
  assert.equal(await markOf(workspace), 1, "and is made again when needed");
  assert.equal(agent.hellos(), 2);
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

interface Book {
  readonly addresses: Addresses;
  readonly evicted: string[];
  readonly saved: (Address | undefined)[];
  fail?: Error | undefined;
}

function book(
  load: (botId: string, wait?: Wait) => Promise<Address | undefined> = async () => undefined,
): Book {
  const self: Book = {
    evicted: [],
    saved: [],
    addresses: new Addresses({
      load,
      save: async (_, address) => {
        await sleep(1);
        if (self.fail !== undefined) throw self.fail;
        self.saved.push(address);
      },
      onChange: (botId) => self.evicted.push(botId),
    }),
  };
  return self;
}

test("a new address or a new boot evicts, the same ones again do not", async () => {
  const { addresses, evicted, saved } = book();
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  assert.deepEqual([evicted.length, saved.length], [1, 1]);
  await addresses.setContainerIP(BOT, "10.0.0.3", "boot-1");
  await addresses.setContainerIP(BOT, "10.0.0.3", "boot-2");
  assert.deepEqual([evicted.length, saved.length], [3, 3]);
  assert.deepEqual(await addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("a cleared address is gone, evicted and forgotten where it was kept", async () => {
  const { addresses, evicted, saved } = book();
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  await addresses.clear(BOT);
  assert.equal(await addresses.get(BOT), undefined);
  assert.deepEqual(saved, [{ ip: "10.0.0.2", bootId: "boot-1" }, undefined]);
  assert.equal(evicted.length, 2);
});

test("an address that could not be kept is not used either", async () => {
  const self = book();
  await self.addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  self.fail = new Fault("unavailable", "the database is down");
  await faultOf(self.addresses.setContainerIP(BOT, "10.0.0.3", "boot-2"), "unavailable");
  assert.equal(await self.addresses.get(BOT), undefined);
  self.fail = undefined;
  await self.addresses.setContainerIP(BOT, "10.0.0.3", "boot-2");
  assert.deepEqual(await self.addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("an empty or malformed address is an error, never a bot without one", async () => {
  const { addresses, evicted } = book();
  for (const ip of ["", "10.0.0", "host", "10.0.0.1:9090"]) {
    await faultOf(addresses.setContainerIP(BOT, ip, "boot-1"), "invalid_argument");
  }
  await faultOf(addresses.setContainerIP(BOT, "10.0.0.2", ""), "invalid_argument");
  assert.equal(evicted.length, 0);
});

test("after a restart of the host the kept address is read once", async () => {
  let loads = 0;
  const { addresses } = book(async (botId) => {
    loads++;
    return await Promise.resolve(botId === BOT ? { ip: "10.0.0.9", bootId: "boot-7" } : undefined);
  });
  const [one, two] = await Promise.all([addresses.get(BOT), addresses.get(BOT)]);
  assert.deepEqual(one, { ip: "10.0.0.9", bootId: "boot-7" });
  assert.deepEqual(two, one);
  assert.equal(loads, 1);
  assert.equal(await addresses.get(OTHER_BOT), undefined);
});

test("changes of one bot are kept in the order they were asked for", async () => {
  const { addresses, saved } = book();
  await Promise.all([
    addresses.setContainerIP(BOT, "10.0.0.2", "boot-1"),
    addresses.clear(BOT),
    addresses.setContainerIP(BOT, "10.0.0.3", "boot-2"),
  ]);
  assert.deepEqual(saved.at(-1), { ip: "10.0.0.3", bootId: "boot-2" });
  assert.deepEqual(await addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("an address change through the one writer moves calls to the new agent", async () => {
  await using old = await fakeAgent(marked(1));
  await using next = await fakeAgent(marked(2), { bootId: "boot-2" });
  const ports = new Map([
    ["127.0.0.1", old.port],
    ["127.0.0.2", next.port],
  ]);
  const addresses = new Addresses({
    load: async () => await Promise.resolve(undefined),
    save: async () => {
      await Promise.resolve();
    },
    onChange: (botId) => {
      pool.evict(botId);
    },
  });
  await using pool = new Pool({
    log: silentLogger(),
    endpoints: async (botId, wait) => {
      const address = await addresses.get(botId, wait);
      if (address === undefined) throw new Fault("failed_precondition", "the bot does not run");
      return { botId, bootId: address.bootId, target: `127.0.0.1:${ports.get(address.ip)}` };
    },
  });
  await addresses.setContainerIP(BOT, "127.0.0.1", "boot-1");
  const workspace = await pool.workspace(BOT);
  assert.equal(await markOf(workspace), 1);
  await addresses.setContainerIP(BOT, "127.0.0.2", "boot-2");
  assert.equal(await markOf(workspace), 2);
  await addresses.clear(BOT);
  await faultOf(workspace.health(), "failed_precondition");
});

test("a static provider gives what it was given and nothing else", async () => {
  await using agent = await fakeAgent(marked(5));
  await using pool = poolOf(new Map([at(agent)]));
  const provider = staticProvider([[BOT, await pool.workspace(BOT)]]);
  assert.equal(await markOf(await provider.workspace(BOT)), 5);
  await faultOf(provider.workspace(OTHER_BOT), "not_found");
});
