// Raw writes over gRPC: what travels in which message, and whose error a failure is.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type WriteRawChunk } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { type AgentHandlers } from "../../support/fake-agent.ts";
import { faultOf, pieces, until } from "../../support/pieces.ts";
import { talk } from "./talk.ts";

const CHUNK = 256 << 10;

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
  assert.ok(aborted, "the agent was told");
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
