// Trees over gRPC: data with a summary behind it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type WriteTreeChunk } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { faultOf, gather } from "../../support/pieces.ts";
import { talk } from "./talk.ts";

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
