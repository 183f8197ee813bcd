// Reads and logs over gRPC: errors before the first byte, cancelling, ranges.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ReadRawRequest } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { BOT } from "../../support/fake-agent.ts";
import { faultOf, gather, until } from "../../support/pieces.ts";
import { talk } from "./talk.ts";

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
