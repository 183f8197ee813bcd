// What goes wrong between a host and the address of an agent, each told apart in words: real servers, real certificates.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createHttp2, type ServerHttp2Session } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { Pki } from "../../../src/host/pki.ts";
import { makeCa, signLeaf } from "../../../src/lib/certificates.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { dial, type Endpoint } from "../../../src/remote/dial.ts";
import type { ServerTls } from "../../../src/rpc/server.ts";
import { BOT, fakeAgent, OTHER_BOT } from "../../support/fake-agent.ts";

const DAY = 86_400_000;
let directory: string;
let pki: Pki;
let foreign: Pki;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "memoh-tls-"));
  const log = silentLogger();
  pki = await Pki.open({ directory: join(directory, "mine"), log });
  foreign = await Pki.open({ directory: join(directory, "foreign"), log });
});

after(async () => {
  pki[Symbol.dispose]();
  foreign[Symbol.dispose]();
  await rm(directory, { recursive: true });
});

/** What an agent of the bot serves with, made by a host. */
async function identity(of: Pki, botId: string): Promise<ServerTls> {
  const made = await of.mintAgentIdentity(botId, "boot-1");
  return {
    certificate: Buffer.from(made.certificate),
    privateKey: Buffer.from(made.privateKey),
    clientCa: Buffer.from(made.hostCa),
  };
}

function endpoint(target: string, tls: Endpoint["tls"] = pki.clientTls(BOT)): Endpoint {
  return { botId: BOT, bootId: "boot-1", target, tls };
}

/** The Fault of an attempt that must fail. */
async function failure(at: Endpoint): Promise<Fault> {
  try {
    using connection = await dial(at, { timeoutMs: 5_000, idleMs: 0, onClose: () => undefined });
    assert.fail(`connected to ${connection.hello.botId}`);
  } catch (error) {
    assert.ok(Fault.is(error), String(error));
    assert.ok(error.hint !== undefined, `a hint says what to do: ${error.message}`);
    assert.match(error.message, new RegExp(BOT), "the bot is named");
    return error;
  }
}

interface Listening extends AsyncDisposable {
  readonly target: string;
}

async function listening(server: Server): Promise<Listening> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return {
    target: `127.0.0.1:${address.port}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => {
        closed.resolve();
      });
      await closed.promise;
    },
  };
}

test("the bot's own agent is let in", async () => {
  await using agent = await fakeAgent({}, { tls: await identity(pki, BOT) });
  using connection = await dial(endpoint(agent.target), {
    timeoutMs: 5_000,
    idleMs: 0,
    onClose: () => undefined,
  });
  assert.deepEqual([connection.hello.botId, connection.hello.bootId], [BOT, "boot-1"]);
});

test("an address where nobody listens is unavailable: connection refused", async () => {
  let target = "";
  {
    await using agent = await fakeAgent();
    target = agent.target;
  }
  const fault = await failure(endpoint(target));
  assert.equal(fault.code, "unavailable");
  assert.match(fault.message, /connection refused/);
});

test("a socket path that does not exist is unavailable", async () => {
  const fault = await failure({ botId: BOT, bootId: "b", target: `unix:${directory}/none.sock` });
  assert.equal(fault.code, "unavailable");
  assert.match(fault.message, /nobody listens/);
});

test("another bot's agent at the address is refused by its certificate and named", async () => {
  await using agent = await fakeAgent({}, { botId: BOT, tls: await identity(pki, OTHER_BOT) });
  const fault = await failure(endpoint(agent.target));
  assert.equal(fault.code, "failed_precondition");
  assert.match(fault.message, /another bot's agent answers there/);
  assert.match(fault.message, new RegExp(OTHER_BOT));
  assert.equal(agent.hellos(), 0, "not one call reached it");
});

test("an agent whose certificate another host's authority signed is refused", async () => {
  const theirs = await identity(foreign, BOT);
  const ours = await identity(pki, BOT);
  await using agent = await fakeAgent({}, { tls: { ...theirs, clientCa: ours.clientCa } });
  const fault = await failure(endpoint(agent.target));
  assert.equal(fault.code, "failed_precondition");
  assert.match(fault.message, /certificate is of another CA/);
  assert.equal(agent.hellos(), 0);
});

test("an agent whose certificate has ended is refused with the day it ended", async () => {
  const ca = await makeCa({
    commonName: "memoh agents CA",
    notBefore: new Date(Date.now() - 90 * DAY),
    notAfter: new Date(Date.now() + DAY),
  });
  const leaf = await signLeaf(ca, {
    commonName: "agent",
    usage: "server",
    dnsNames: [pki.clientTls(BOT).serverName],
    notBefore: new Date(Date.now() - 60 * DAY),
    notAfter: new Date(Date.now() - DAY),
  });
  const { clientCa } = await identity(pki, BOT);
  await using agent = await fakeAgent(
    {},
    {
      tls: {
        certificate: Buffer.from(leaf.certificate),
        privateKey: Buffer.from(leaf.privateKey),
        clientCa,
      },
    },
  );
  const fault = await failure(
    endpoint(agent.target, { ...pki.clientTls(BOT), serverCa: Buffer.from(ca.certificate) }),
  );
  assert.equal(fault.code, "failed_precondition");
  assert.match(fault.message, /certificate ended on/);
});

test("an agent of another host refuses this host's certificate, and that is what is said", async () => {
  const ours = await identity(pki, BOT);
  const theirs = await identity(foreign, BOT);
  await using agent = await fakeAgent({}, { tls: { ...ours, clientCa: theirs.clientCa } });
  const fault = await failure(endpoint(agent.target));
  assert.equal(fault.code, "failed_precondition");
  assert.match(fault.message, /refuses this host's certificate/);
  assert.equal(agent.hellos(), 0);
});

test("a bot that calls another bot's agent with its own certificate is refused", async () => {
  await using agent = await fakeAgent({}, { botId: OTHER_BOT, tls: await identity(pki, OTHER_BOT) });
  const mine = await identity(pki, BOT);
  const fault = await failure(
    endpoint(agent.target, {
      ...pki.clientTls(OTHER_BOT),
      certificate: mine.certificate,
      privateKey: mine.privateKey,
    }),
  );
  assert.match(fault.message, /refuses this host's certificate/);
  assert.equal(agent.hellos(), 0);
});

test("a TLS client without a certificate is cut off before it can call", async () => {
  await using agent = await fakeAgent({}, { tls: await identity(pki, BOT) });
  const { serverCa, serverName } = pki.clientTls(BOT);
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connectTls({
    host: "127.0.0.1",
    port: agent.port,
    ca: serverCa,
    servername: serverName,
    ALPNProtocols: ["h2"],
  });
  socket.on("error", () => undefined);
  socket.on("data", () => {
    resolve("an answer");
  });
  socket.on("close", () => {
    resolve("cut off");
  });
  socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  assert.equal(await promise, "cut off");
});

test("a caller in the clear does not get through", async () => {
  await using agent = await fakeAgent({}, { tls: await identity(pki, BOT) });
  await failure({ botId: BOT, bootId: "boot-1", target: agent.target });
  assert.equal(agent.hellos(), 0);
});

test("a certificate that may only serve cannot be a client's even when the authority is trusted", async () => {
  const mine = await identity(pki, BOT);
  const trusting = { ...mine, clientCa: pki.clientTls(BOT).serverCa };
  await using agent = await fakeAgent({}, { tls: trusting });
  const fault = await failure(
    endpoint(agent.target, {
      ...pki.clientTls(BOT),
      certificate: mine.certificate,
      privateKey: mine.privateKey,
    }),
  );
  assert.match(fault.message, /refuses this host's certificate/);
  assert.equal(agent.hellos(), 0);
});

for (const secured of [true, false]) {
  const how = secured ? "over TLS" : "in the clear";

  test(`a program that answers garbage ${how} is no agent`, async () => {
    await using server = await listening(
      createServer((socket) => {
        socket.write("220 mail.example ESMTP ready\r\n");
      }),
    );
    const at = { botId: BOT, bootId: "boot-1", target: server.target };
    const fault = await failure(secured ? endpoint(server.target) : at);
    assert.equal(fault.code, "data_loss");
    assert.match(fault.message, /no agent/);
  });
}

test("a TLS server that speaks no HTTP/2 is no agent", async () => {
  const { certificate, privateKey } = await identity(pki, BOT);
  await using server = await listening(
    createTlsServer({ cert: certificate, key: privateKey, ALPNProtocols: ["h2"] }, (socket) => {
      socket.on("error", () => undefined);
      socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
    }),
  );
  const fault = await failure(endpoint(server.target));
  assert.equal(fault.code, "data_loss");
  assert.match(fault.message, /does not speak HTTP\/2/);
});

test("an HTTP/2 server that is no agent is refused", async () => {
  const server = createHttp2();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    stream.respond({ ":status": 404 });
    stream.end("not here");
  });
  await using at = await listening(server);
  const fault = await failure({ botId: BOT, bootId: "b", target: at.target });
  for (const session of sessions) session.destroy();
  assert.equal(fault.code, "data_loss");
});

test("an agent from before Hello is told to be restarted", async () => {
  await using agent = await fakeAgent({ health: async () => await Promise.resolve({}) }, { old: true });
  const fault = await failure({ botId: BOT, bootId: "boot-1", target: agent.target });
  assert.equal(fault.code, "failed_precondition");
  assert.match(fault.message, /too old/);
});

test("a program that takes connections and never answers is unavailable", async () => {
  await using server = await listening(createServer(() => undefined));
  const at = endpoint(server.target);
  await assert.rejects(
    dial(at, { timeoutMs: 200, idleMs: 0, onClose: () => undefined }),
    (error: unknown) => Fault.is(error, "unavailable") && /nothing answers/.test(error.message),
  );
});
