// Every call over gRPC: deadlines, reasons, paths and numbers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { faultOf } from "../../support/pieces.ts";
import { GOOD_ENTRY, serverAt, talk } from "./talk.ts";

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

test("every unary call has a deadline that travels to the agent", async () => {
  const headers: NodeJS.Dict<string | string[]>[] = [];
  await using at = await serverAt((stream, received) => {
    headers.push(received);
    const answer = { ":status": 200, "content-type": "application/grpc", "grpc-status": "5" };
    stream.respond(answer, { endStream: true });
  });
  const w = at.workspace;
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
  for (const received of headers) {
    assert.match(String(received["grpc-timeout"]), /^\d+[mSMu]$/, String(received[":path"]));
  }
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

test("numbers that do not fit the wire are refused here", async () => {
  await using at = await talk({});
  await faultOf(at.workspace.readText("x", { lineOffset: 2 ** 31 }), "invalid_argument");
  await faultOf(at.workspace.list("x", { limit: 1.5 }), "invalid_argument");
  await faultOf(at.workspace.readRaw("x", { offset: -1 }), "invalid_argument");
});
