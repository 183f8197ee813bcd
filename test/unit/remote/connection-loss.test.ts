// Connections that end: lost, silent, idle, taken over.
import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { sleep } from "../../../src/lib/signal.ts";
import { BOT, fakeAgent } from "../../support/fake-agent.ts";
import { faultOf, gather, until } from "../../support/pieces.ts";
import { at, marked, markOf, poolOf } from "./pools.ts";

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
