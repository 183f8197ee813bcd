// The workspace over gRPC, against agents that answer what a good one would not.
import assert from "node:assert/strict";
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session } from "node:http2";
import { test } from "node:test";
import type { ExecEvent, Execution, Workspace } from "../../../src/core/workspace.ts";
import {
  ExecOutput_Stream,
  type ReadRawRequest,
  type WriteRawChunk,
  type WriteTreeChunk,
} from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { workspaceOver } from "../../../src/remote/provider.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { type AgentHandlers, BOT, fakeAgent } from "../../support/fake-agent.ts";
import { faultOf, gather, pieces, until } from "../../support/pieces.ts";

const CHUNK = 256 << 10;
const EXIT = ExecOutput_Stream.EXIT;

interface Talk extends AsyncDisposable {
  readonly workspace: Workspace;
}

/** A workspace that talks to these handlers. */
async function talk(handlers: AgentHandlers): Promise<Talk> {
  const agent = await fakeAgent(handlers);
  const channel = new RpcChannel({ target: agent.target });
  return {
    workspace: workspaceOver(channel, BOT),
    [Symbol.asyncDispose]: async () => {
      channel[Symbol.dispose]();
      await agent[Symbol.asyncDispose]();
    },
  };
}

const GOOD_ENTRY = { path: "a", mode: "-rw-r--r--", modTime: "2026-11-23T12:00:00Z", size: 1n };

async function eventsOf(execution: Execution): Promise<ExecEvent[]> {
  const events: ExecEvent[] = [];
  for await (const event of execution.events) events.push(event);
  return events;
}

test("a read that fails before the first byte throws at once, with the agent's code", async () => {
  await using at = await talk({
    // oxlint-disable-next-line require-yield -- it fails before it yields
    async *readRaw() {
      await Promise.resolve();
      throw new Fault("not_found", "Cannot open /data/x: no such file or directory", { hint: "Look again" });
    },
  });
  const fault = await faultOf(at.workspace.readRaw("x"), "not_found");
  assert.equal(fault.message, "Cannot open /data/x: no such file or directory");
  assert.equal(fault.hint, "Look again");
});

test("an empty file is an empty reader", async () => {
  await using at = await talk({ async *readRaw() {} });
  assert.equal((await gather(await at.workspace.readRaw("x"))).length, 0);
});

test("a read that fails in the middle throws after the bytes that came", async () => {
  await using at = await talk({
    async *readRaw() {
      yield await Promise.resolve({ data: Buffer.from("half") });
      throw new Fault("data_loss", "Cannot read: input/output error");
    },
  });
  const reader = await at.workspace.readRaw("x");
  const got: string[] = [];
  await faultOf(
    (async () => {
      for await (const part of reader) got.push(String(Buffer.from(part)));
    })(),
    "data_loss",
  );
  assert.deepEqual(got, ["half"]);
});

for (const leave of ["leaving the loop", "closing before the first byte"]) {
  test(`${leave} cancels the read at the agent`, async () => {
    let cancelled = false;
    await using at = await talk({
      async *readRaw(_, { signal }) {
        signal.addEventListener("abort", () => {
          cancelled = true;
        });
        for (;;) {
          yield { data: Buffer.alloc(1000) };
          await sleep(1, signal);
        }
      },
    });
    const reader = await at.workspace.readRaw("x");
    if (leave === "leaving the loop") {
      for await (const _ of reader) break;
    } else await reader[Symbol.asyncIterator]().return?.();
    await until("the agent notices", () => cancelled);
  });
}

test("a read of a part asks for it", async () => {
  const asked: ReadRawRequest[] = [];
  await using at = await talk({
    async *readRaw(request) {
      asked.push(request);
      yield await Promise.resolve({ data: Buffer.alloc(Number(request.length), 7) });
    },
  });
  assert.equal((await gather(await at.workspace.readRaw("x", { offset: 2 ** 40, length: 3 }))).length, 3);
  assert.deepEqual([asked[0]?.offset, asked[0]?.length], [2n ** 40n, 3n]);
});

test("an agent that sends more than was asked for is not believed", async () => {
  await using at = await talk({
    async *readRaw() {
      yield await Promise.resolve({ data: Buffer.alloc(4) });
    },
  });
  const fault = await faultOf(gather(await at.workspace.readRaw("x", { length: 3 })), "data_loss");
  assert.match(fault.message, new RegExp(BOT));
});

/** An agent that keeps what a WriteRaw brought. */
function recording(chunks: WriteRawChunk[], answer?: () => bigint): AgentHandlers {
  return {
    writeRaw: async (requests) => {
      for await (const chunk of requests) chunks.push(chunk);
      const size = chunks.reduce((sum, { data }) => sum + data.length, 0);
      return { bytesWritten: answer?.() ?? BigInt(size) };
    },
  };
}

test("an empty source still sends the path, so that an empty file is made", async () => {
  const chunks: WriteRawChunk[] = [];
  await using at = await talk(recording(chunks));
  assert.equal(await at.workspace.writeRaw("dir/empty", pieces()), 0);
  assert.deepEqual(
    chunks.map(({ path, data, needsCommit, commit }) => [path, data.length, needsCommit, commit]),
    [
      ["dir/empty", 0, true, false],
      ["", 0, false, true],
    ],
  );
});

test("data travels in pieces of 256 KiB whatever the source yields, and only the first message has the path", async () => {
  const chunks: WriteRawChunk[] = [];
  await using at = await talk(recording(chunks));
  const content = Buffer.alloc(3 * CHUNK + 5).map((_, i) => i * 7);
  async function* source() {
    let start = 0;
    for (const size of [1, 70_000, 2 * CHUNK, 0, 100_000]) {
      yield await Promise.resolve(content.subarray(start, start + size));
      start += size;
    }
    yield content.subarray(start);
  }
  assert.equal(await at.workspace.writeRaw("f", source()), content.length);
  const [first, ...rest] = chunks;
  assert.deepEqual([first?.path, first?.data.length], ["f", 0]);
  assert.deepEqual(
    rest.map(({ data }) => data.length),
    [CHUNK, CHUNK, CHUNK, 5, 0],
  );
  assert.ok(rest.every(({ path }) => path === ""));
  assert.ok(Buffer.concat(rest.map(({ data }) => data)).equals(content));
});

test("a source that throws aborts the write at the agent, and its own error is what is thrown", async () => {
  let end: unknown;
  let aborted = false;
  const arrived = Promise.withResolvers<void>();
  await using at = await talk({
    writeRaw: async (requests) => {
      try {
        for await (const chunk of requests) {
          arrived.resolve();
          aborted ||= chunk.abort;
          if (aborted) throw new Fault("aborted", "the sender failed");
        }
        end = "a finished stream";
      } catch (error) {
        end = error;
        throw error;
      }
      return { bytesWritten: 0n };
    },
  });
  async function* broken() {
    yield Buffer.alloc(CHUNK);
    await arrived.promise;
    throw new Fault("unavailable", "the upload broke off");
  }
  const fault = await faultOf(at.workspace.writeRaw("f", broken()), "unavailable");
  assert.equal(fault.message, "the upload broke off");
  await until("the agent's handler ends", () => end !== undefined);
  assert.ok(end instanceof Fault, `a broken source is never ${String(end)}`);
});

test("a write that the agent counts differently is data loss", async () => {
  await using at = await talk(recording([], () => 3n));
  await faultOf(at.workspace.writeRaw("f", pieces("four")), "data_loss");
});

test("a write that fails at the agent throws while the source still has more, and closes the source", async () => {
  await using at = await talk({
    writeRaw: async () => {
      await Promise.resolve();
      throw new Fault("resource_exhausted", "Cannot write: no space left on device");
    },
  });
  let closed = false;
  async function* endless() {
    try {
      for (;;) {
        yield Buffer.alloc(CHUNK);
        await sleep(1);
      }
    } finally {
      closed = true;
    }
  }
  await faultOf(at.workspace.writeRaw("f", endless()), "resource_exhausted");
  await until("the source is closed", () => closed);
});

test("content larger than a message travels as a stream", async () => {
  const chunks: WriteRawChunk[] = [];
  let unary = 0;
  await using at = await talk({
    ...recording(chunks),
    writeFile: async ({ content }) => {
      unary = content.length;
      return await Promise.resolve({});
    },
  });
  await at.workspace.writeFile("small", Buffer.alloc(1 << 20));
  await at.workspace.writeFile("large", Buffer.alloc(30 << 20));
  assert.equal(unary, 1 << 20);
  assert.equal(
    chunks.reduce((sum, { data }) => sum + data.length, 0),
    30 << 20,
  );
});

test("a write waits for the agent instead of filling memory", async () => {
  const gate = Promise.withResolvers<void>();
  await using at = await talk({
    writeRaw: async (requests) => {
      await gate.promise;
      let size = 0;
      for await (const { data } of requests) size += data.length;
      return { bytesWritten: BigInt(size) };
    },
  });
  let taken = 0;
  async function* source() {
    for (let i = 0; i < 150; i++) {
      taken++;
      yield await Promise.resolve(Buffer.alloc(CHUNK));
    }
  }
  const writing = at.workspace.writeRaw("f", source());
  let before = -1;
  await until("the transport takes no more", async () => {
    const stuck = taken === before;
    before = taken;
    await sleep(50);
    return stuck;
  });
  assert.ok(taken < 100, `${taken} chunks of 256 KiB were taken while the agent read none`);
  gate.resolve();
  assert.equal(await writing, 150 * CHUNK);
});

test("a path that is not UTF-8 travels as its bytes, one that is as text", async () => {
  const seen: [string, string][] = [];
  await using at = await talk({
    stat: async ({ path, pathRaw }) => {
      seen.push([path, Buffer.from(pathRaw).toString("hex")]);
      return await Promise.resolve({ entry: GOOD_ENTRY });
    },
  });
  await at.workspace.stat("ü");
  await at.workspace.stat(Buffer.from("ü"));
  await at.workspace.stat(Buffer.from([0x61, 0xff]));
  assert.deepEqual(seen, [
    ["ü", ""],
    ["ü", ""],
    ["a\ufffd", "61ff"],
  ]);
  await faultOf(at.workspace.stat("a\ud800"), "invalid_argument");
});

const HOSTILE_NAMES: readonly (readonly [string, boolean, string | Buffer])[] = [
  ["with a slash", false, "a/b"],
  ["that climbs", false, ".."],
  ["that is the directory itself", false, "."],
  ["that is empty", false, ""],
  ["with a NUL", false, "a\0b"],
  ["longer than any name", false, "a".repeat(256)],
  ["with a slash in its bytes", false, Buffer.from([0xff, 0x2f, 0x61])],
  ["that is absolute", true, "/etc/passwd"],
  ["that climbs", true, "a/../../etc/passwd"],
  ["that climbs at its end", true, "a/.."],
  ["with an empty part", true, "a//b"],
  ["that ends in a slash", true, "a/"],
  ["with a dot", true, "./a"],
];
for (const [what, recursive, name] of HOSTILE_NAMES) {
  test(`a ${recursive ? "path in a walk" : "name in a list"} ${what} is refused`, async () => {
    const path = typeof name === "string" ? { path: name } : { pathRaw: name };
    await using at = await talk({
      listDir: async () => await Promise.resolve({ entries: [{ ...GOOD_ENTRY, ...path }], totalCount: 1 }),
    });
    const fault = await faultOf(at.workspace.list("/", { recursive }), "data_loss");
    assert.match(fault.message, new RegExp(BOT));
  });
}

test("names in a list that are odd but honest are taken as they are", async () => {
  const names = ["...", "..a", "a ", "\n", "-rf", "ü"];
  await using at = await talk({
    listDir: async () =>
      await Promise.resolve({ entries: names.map((path) => ({ ...GOOD_ENTRY, path })), totalCount: 6 }),
  });
  const { entries } = await at.workspace.list("/");
  assert.deepEqual(
    entries.map(({ path }) => String(path)),
    names,
  );
});

const NONSENSE: readonly (readonly [string, AgentHandlers, (workspace: Workspace) => Promise<unknown>])[] = [
  [
    "more entries than were asked for",
    {
      listDir: async () => await Promise.resolve({ entries: [GOOD_ENTRY, { ...GOOD_ENTRY, path: "b" }] }),
    },
    async (w) => await w.list("/", { limit: 1 }),
  ],
  ["no entry at all", { stat: async () => await Promise.resolve({}) }, async (w) => await w.stat("x")],
  [
    "a size below zero",
    { stat: async () => await Promise.resolve({ entry: { ...GOOD_ENTRY, size: -1n } }) },
    async (w) => await w.stat("x"),
  ],
  [
    "a mode that is none",
    { stat: async () => await Promise.resolve({ entry: { ...GOOD_ENTRY, mode: "\u001b[31m" } }) },
    async (w) => await w.stat("x"),
  ],
  [
    "a time that is none",
    { stat: async () => await Promise.resolve({ entry: { ...GOOD_ENTRY, modTime: "yesterday" } }) },
    async (w) => await w.stat("x"),
  ],
  [
    "a page without end",
    { readFile: async () => await Promise.resolve({ content: "x".repeat(1 << 20) }) },
    async (w) => await w.readText("x"),
  ],
  [
    "a negative count",
    { readFile: async () => await Promise.resolve({ totalLines: -1 }) },
    async (w) => await w.readText("x"),
  ],
  [
    "a tree without a summary",
    {
      async *readTree() {
        yield await Promise.resolve({ data: Buffer.alloc(512) });
      },
    },
    async (w) => await gather((await w.readTree("x")).data),
  ],
  [
    "a tree that goes on after its summary",
    {
      async *readTree() {
        yield await Promise.resolve({ summary: { sha256: Buffer.alloc(32) } });
        yield { data: Buffer.alloc(512) };
      },
    },
    async (w) => await gather((await w.readTree("x")).data),
  ],
  [
    "a tree whose hash is none",
    {
      async *readTree() {
        yield await Promise.resolve({ summary: { sha256: Buffer.alloc(31) } });
      },
    },
    async (w) => await gather((await w.readTree("x")).data),
  ],
  [
    "a tree that skipped a path outside of it",
    {
      async *readTree() {
        yield await Promise.resolve({
          summary: { sha256: Buffer.alloc(32), skipped: [{ pathRaw: Buffer.from("../x"), reason: "" }] },
        });
      },
    },
    async (w) => await gather((await w.readTree("x")).data),
  ],
  [
    "a conflict outside of the tree",
    {
      writeTree: async () =>
        await Promise.resolve({
          summary: { sha256: Buffer.alloc(32) },
          conflicts: [Buffer.from("/etc/passwd")],
        }),
    },
    async (w) => await w.writeTree("x", pieces()),
  ],
  [
    "an exit code out of range",
    {
      async *exec(_, { accept }) {
        accept();
        yield await Promise.resolve({ stream: EXIT, exitCode: 4711 });
      },
    },
    async (w) => await eventsOf(await w.exec({ command: "x" })),
  ],
  [
    "output of a stream that does not exist",
    {
      async *exec(_, { accept }) {
        accept();
        yield await Promise.resolve({ stream: 9 as ExecOutput_Stream, data: Buffer.alloc(1) });
      },
    },
    async (w) => await eventsOf(await w.exec({ command: "x" })),
  ],
];
for (const [what, handlers, ask] of NONSENSE) {
  test(`${what} is data loss that names the bot`, async () => {
    await using at = await talk(handlers);
    const fault = await faultOf(ask(at.workspace), "data_loss");
    assert.match(fault.message, new RegExp(BOT));
  });
}

/** An agent of raw bytes: every call is answered with this message. */
async function rawAgent(message: Buffer): Promise<Talk> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => {
      stream.sendTrailers({ "grpc-status": "0" });
    });
    stream.on("error", () => undefined);
    stream.end(Buffer.concat([head, message]));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const channel = new RpcChannel({ target: `127.0.0.1:${address.port}` });
  return {
    workspace: workspaceOver(channel, BOT),
    [Symbol.asyncDispose]: async () => {
      channel[Symbol.dispose]();
      for (const session of sessions) session.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => {
        closed.resolve();
      });
      await closed.promise;
    },
  };
}

/** Empty elements of field 1: two bytes each on the wire. */
const MANY = Buffer.alloc(4 << 20, Buffer.from([0x0a, 0x00]));
const BOMBS: readonly (readonly [string, Buffer, (workspace: Workspace) => Promise<unknown>])[] = [
  ["entries of a list", MANY, async (w) => await w.list("/")],
  // Field 100 of ListDirResponse: unreadable.
  ["paths", Buffer.alloc(6 << 20, Buffer.from([0xa2, 0x06, 0x00])), async (w) => await w.list("/")],
  // Field 2 of TreeChunk is the summary, its field 4 the skips.
  [
    "skips inside a summary",
    Buffer.concat([
      Buffer.from([0x12, 0x80, 0x80, 0x80, 0x02]),
      Buffer.alloc(4 << 20, Buffer.from([0x22, 0x00])),
    ]),
    async (w) => await gather((await w.readTree("/")).data),
  ],
];
for (const [what, message, ask] of BOMBS) {
  test(`millions of empty ${what} in a few megabytes are refused before they become objects`, async () => {
    await using at = await rawAgent(message);
    const fault = await faultOf(ask(at.workspace), "data_loss");
    assert.match(fault.message, new RegExp(`${BOT}.*elements`));
  });
}

for (const [what, message] of [
  ["bytes that are no message", Buffer.alloc(100, 0xff)],
  ["a length beyond the end", Buffer.concat([Buffer.from([0x0a, 0xff, 0xff, 0x7f]), Buffer.alloc(1 << 17)])],
] as const) {
  test(`${what} is data loss that names the bot`, async () => {
    await using at = await rawAgent(message);
    const fault = await faultOf(at.workspace.list("/"), "data_loss");
    assert.match(fault.message, new RegExp(BOT));
  });
}

test("what an agent says is bounded and cannot write to a terminal", async () => {
  await using at = await talk({
    mkdir: async () => {
      await Promise.resolve();
      throw new Fault("permission_denied", `\u001b]0;owned\u0007 no\n${"x".repeat(5000)}`);
    },
  });
  const fault = await faultOf(at.workspace.mkdir("x"), "permission_denied");
  // oxlint-disable-next-line no-control-regex -- that none is left is the point
  assert.doesNotMatch(fault.message, /[\u0000-\u001f]/);
  assert.ok(fault.message.length < 1100);
});

test("a tree arrives with its summary", async () => {
  await using at = await talk({
    async *readTree() {
      yield await Promise.resolve({ data: Buffer.from("tar") });
      yield { summary: { entries: 2n, bytes: 3n, sha256: Buffer.alloc(32, 1), xattrsUnsupported: true } };
    },
  });
  const tree = await at.workspace.readTree("x");
  assert.equal(String(await gather(tree.data)), "tar");
  assert.deepEqual(await tree.summary, {
    entries: 2,
    bytes: 3,
    sha256: Buffer.alloc(32, 1),
    skipped: [],
    xattrsUnsupported: true,
  });
});

test("the summary of a tree that was not read to its end is an error, not a promise for ever", async () => {
  await using at = await talk({
    async *readTree(_, { signal }) {
      for (;;) {
        yield { data: Buffer.alloc(1000) };
        await sleep(1, signal);
      }
    },
  });
  const tree = await at.workspace.readTree("x");
  for await (const _ of tree.data) break;
  await faultOf(tree.summary, "cancelled");
});

test("a tree is written with its conflict rule first and the expected summary last", async () => {
  const chunks: WriteTreeChunk[] = [];
  await using at = await talk({
    writeTree: async (requests) => {
      for await (const chunk of requests) chunks.push(chunk);
      return { summary: { sha256: Buffer.alloc(32) }, conflicts: [Buffer.from("a/b")] };
    },
  });
  let read = false;
  async function* data() {
    yield await Promise.resolve(Buffer.from("tar"));
    read = true;
  }
  const written = await at.workspace.writeTree(Buffer.from([0xff]), data(), {
    conflict: "rename",
    expected: async () => {
      assert.ok(read, "the summary is asked for after the data");
      return await Promise.resolve({
        entries: 1,
        bytes: 3,
        sha256: Buffer.alloc(32, 2),
        skipped: [],
        xattrsUnsupported: false,
      });
    },
  });
  assert.deepEqual(
    chunks.map((chunk) => [chunk.conflict, Buffer.from(chunk.data).toString(), chunk.summary?.sha256[0]]),
    [
      [3, "", undefined],
      [0, "tar", undefined],
      [0, "", 2],
    ],
  );
  assert.deepEqual(Buffer.from(chunks[0]?.pathRaw ?? []), Buffer.from([0xff]));
  assert.deepEqual(written.conflicts, [Buffer.from("a/b")]);
});

test("a command that cannot be started rejects before there is an execution", async () => {
  await using at = await talk({
    // oxlint-disable-next-line require-yield -- it fails before it yields
    async *exec() {
      await Promise.resolve();
      throw new Fault("not_found", "Cannot start: no such directory");
    },
  });
  await faultOf(at.workspace.exec({ command: "x", cwd: "/none" }), "not_found");
});

test("a command without a time limit says so, one with a limit in whole seconds rounded up", async () => {
  const seen: unknown[] = [];
  await using at = await talk({
    async *exec(requests, { accept }) {
      accept();
      for await (const first of requests) {
        seen.push([first.noTimeout, first.timeoutSeconds, first.command, first.argv, first.env, first.pty]);
        break;
      }
      yield { stream: EXIT };
    },
  });
  await eventsOf(await at.workspace.exec({ command: "x" }));
  await eventsOf(await at.workspace.exec({ command: ["x", "y z"], timeoutMs: 1500, env: { A: "b=c" } }));
  await eventsOf(await at.workspace.exec({ command: "x", timeoutMs: 1, pty: { cols: 80, rows: 24 } }));
  assert.deepEqual(seen, [
    [true, 0, "x", [], [], false],
    [false, 2, "", ["x", "y z"], ["A=b=c"], false],
    [false, 1, "x", [], [], true],
  ]);
  await faultOf(at.workspace.exec({ command: "x", env: { "A=B": "c" } }), "invalid_argument");
});

test("stdin, its end, a resize and a signal travel in their order", async () => {
  const seen: unknown[] = [];
  await using at = await talk({
    async *exec(requests, { accept }) {
      accept();
      let first = true;
      for await (const m of requests) {
        if (!first) seen.push([String(Buffer.from(m.stdinData)), m.closeStdin, m.resize?.cols, m.signal]);
        first = false;
        if (m.signal !== "") break;
      }
      yield { stream: EXIT, exitCode: -1, signal: "SIGINT" };
    },
  });
  await using execution = await at.workspace.exec({ command: "x", pty: { cols: 80, rows: 24 } });
  await execution.write(Buffer.from("in"));
  await execution.resize({ cols: 100, rows: 30 });
  await execution.end();
  await faultOf(execution.write(Buffer.from("more")), "failed_precondition");
  await execution.kill("SIGINT");
  const events = await eventsOf(execution);
  assert.deepEqual(events, [{ kind: "exit", status: { code: -1, signal: "SIGINT", timedOut: false } }]);
  assert.deepEqual(seen, [
    ["in", false, undefined, ""],
    ["", false, 100, ""],
    ["", true, undefined, ""],
    ["", false, undefined, "SIGINT"],
  ]);
  await faultOf(execution.write(Buffer.from("late")), "failed_precondition");
  await faultOf(execution.resize({ cols: 0, rows: 1 }), "invalid_argument");
  await faultOf(execution.kill("SIGNOT"), "invalid_argument");
  await faultOf(execution.kill("SIGINT"), "failed_precondition");
});

test("a stream that ends without an exit is an interruption, never exit code 0", async () => {
  await using at = await talk({
    async *exec(_, { accept }) {
      accept();
      yield await Promise.resolve({ stream: ExecOutput_Stream.STDOUT, data: Buffer.from("out") });
    },
  });
  const execution = await at.workspace.exec({ command: "x" });
  const events: ExecEvent[] = [];
  const fault = await faultOf(
    (async () => {
      for await (const event of execution.events) events.push(event);
    })(),
    "unavailable",
  );
  assert.match(fault.message, /interrupted/);
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ["stdout"],
  );
});

test("an agent that dies under a command is an interruption", async () => {
  const agent = await fakeAgent({
    async *exec(_, { accept, signal }) {
      accept();
      yield { data: Buffer.from("out") };
      await sleep(60_000, signal);
    },
  });
  using channel = new RpcChannel({ target: agent.target });
  const execution = await workspaceOver(channel, BOT).exec({ command: "x" });
  const fault = faultOf(
    (async () => {
      for await (const event of execution.events) {
        assert.equal(event.kind, "stdout");
        await agent[Symbol.asyncDispose]();
      }
    })(),
    "unavailable",
  );
  assert.match((await fault).message, /interrupted/);
});

test("there is one exit and nothing after it, whatever the agent goes on to send", async () => {
  await using at = await talk({
    async *exec(_, { accept }) {
      accept();
      yield await Promise.resolve({ stream: EXIT, exitCode: 3 });
      yield { stream: EXIT, exitCode: 0 };
      yield { stream: ExecOutput_Stream.STDOUT, data: Buffer.from("late") };
    },
  });
  const events = await eventsOf(await at.workspace.exec({ command: "x" }));
  assert.deepEqual(events, [{ kind: "exit", status: { code: 3, signal: undefined, timedOut: false } }]);
});

for (const how of ["disposing", "the caller's signal"]) {
  test(`${how} cancels the command at the agent`, async () => {
    let cancelled = false;
    await using at = await talk({
      async *exec(_, { accept, signal }) {
        signal.addEventListener("abort", () => {
          cancelled = true;
        });
        accept();
        yield { data: Buffer.from("out") };
        await sleep(60_000, signal);
      },
    });
    const controller = new AbortController();
    const execution = await at.workspace.exec({ command: "x", signal: controller.signal });
    if (how === "disposing") await execution[Symbol.asyncDispose]();
    else {
      controller.abort(new Fault("cancelled", "enough"));
      await faultOf(eventsOf(execution), "cancelled");
    }
    await until("the agent notices", () => cancelled);
  });
}

test("every unary call has a deadline that travels to the agent", async () => {
  const headers: IncomingHttpHeaders[] = [];
  const server = createServer();
  server.on("stream", (stream, received) => {
    headers.push(received);
    stream.respond(
      { ":status": 200, "content-type": "application/grpc", "grpc-status": "5" },
      { endStream: true },
    );
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  {
    using channel = new RpcChannel({ target: `127.0.0.1:${address.port}` });
    const w = workspaceOver(channel, BOT);
    const calls = [
      w.hello(),
      w.health(),
      w.readText("x"),
      w.writeFile("x", Buffer.alloc(1)),
      w.list("x"),
      w.stat("x"),
      w.mkdir("x"),
      w.rename("x", "y"),
      w.remove("x"),
    ];
    for (const call of calls) await faultOf(call, "not_found");
    assert.equal(headers.length, calls.length);
  }
  for (const received of headers) {
    assert.match(String(received["grpc-timeout"]), /^\d+[mSMu]$/, String(received[":path"]));
  }
  server.close();
});

test("an agent that never answers is a deadline that names the bot", async () => {
  await using at = await talk({
    stat: async (_, { signal }) => {
      await sleep(60_000, signal);
      return {};
    },
  });
  const signal = AbortSignal.timeout(100);
  await faultOf(at.workspace.stat("x", { signal }), "deadline_exceeded");
});

test("a caller's reason to stop is what the caller gets", async () => {
  await using at = await talk({
    stat: async (_, { signal }) => {
      await sleep(60_000, signal);
      return {};
    },
  });
  const controller = new AbortController();
  const call = at.workspace.stat("x", { signal: controller.signal });
  controller.abort(new Fault("aborted", "another host took over"));
  const fault = await faultOf(call, "aborted");
  assert.equal(fault.message, "another host took over");
});

test("logs come as bytes, and leaving them cancels", async () => {
  let cancelled = false;
  await using at = await talk({
    async *logs({ tailLines, follow }, { signal }) {
      signal.addEventListener("abort", () => {
        cancelled = true;
      });
      yield { data: Buffer.from(`${tailLines} ${follow}`) };
      await sleep(60_000, signal);
    },
  });
  for await (const part of at.workspace.logs({ tailLines: 5, follow: true })) {
    assert.equal(String(Buffer.from(part)), "5 true");
    break;
  }
  await until("the agent notices", () => cancelled);
});

test("numbers that do not fit the wire are refused here", async () => {
  await using at = await talk({});
  await faultOf(at.workspace.readText("x", { lineOffset: 2 ** 31 }), "invalid_argument");
  await faultOf(at.workspace.list("x", { limit: 1.5 }), "invalid_argument");
  await faultOf(at.workspace.readRaw("x", { offset: -1 }), "invalid_argument");
});
