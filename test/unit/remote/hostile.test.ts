// An agent that answers what no honest one would: names, numbers, texts, bombs.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Workspace } from "../../../src/core/workspace.ts";
import { ExecOutput_Stream } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { type AgentHandlers, BOT } from "../../support/fake-agent.ts";
import { faultOf, gather, pieces } from "../../support/pieces.ts";
import { EXIT, eventsOf, GOOD_ENTRY, serverAt, type Talk, talk } from "./talk.ts";

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
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return await serverAt((stream) => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => {
      stream.sendTrailers({ "grpc-status": "0" });
    });
    stream.end(Buffer.concat([head, message]));
  });
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
