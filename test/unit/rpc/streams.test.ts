// The three kinds of stream: order, early and late errors, half-close, cancellation and backpressure.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ContainerService } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { opened } from "../../../src/rpc/client.ts";
import { bytes, rpcRig, until } from "./rig.ts";

const CHUNK = 256 << 10;

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of stream) all.push(one);
  return all;
}

/** A stream that fails before its first message. */
function failing(fault: Fault): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(fault) }) };
}

/** Resolves when the count has stopped growing. */
async function settled(count: () => number): Promise<number> {
  for (let last = -1; ; ) {
    const now = count();
    if (now === last) return now;
    last = now;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

describe("a server stream", { timeout: 60_000 }, () => {
  test("brings every message in order, also when there are none", async () => {
    await using rig = await rpcRig({
      readRaw: async function* (request) {
        for (let index = 0; index < Number(request.length); index++) {
          await Promise.resolve();
          yield { data: Buffer.from(String(index)) };
        }
      },
    });
    const chunks = await collect(rig.client.readRaw({ length: 500n }));
    assert.deepEqual(
      chunks.map((chunk) => Buffer.from(chunk.data).toString()),
      chunks.map((_, index) => String(index)),
    );
    assert.equal(chunks.length, 500);
    assert.deepEqual(await collect(rig.client.readRaw({ length: 0n })), []);
  });

  test("that fails at once throws from opened, not from the loop", async () => {
    await using rig = await rpcRig({
      readRaw: async function* () {
        await Promise.resolve();
        yield* failing(new Fault("not_found", "no such file", { hint: "look" }));
      },
    });
    await assert.rejects(opened(rig.client.readRaw({})), {
      code: "not_found",
      message: "no such file",
      hint: "look",
    });
    await assert.rejects(rig.client.readRaw({}).accepted, { code: "not_found" });
  });

  // gRPC drops what waits unread beyond the 16 messages the client holds.
  test("hands out what came before a late error, then throws it", async () => {
    await using rig = await rpcRig({
      readRaw: async function* () {
        for (let index = 0; index < 10; index++) yield { data: bytes(10) };
        await Promise.resolve();
        throw new Fault("data_loss", "the disk is broken");
      },
    });
    const stream = rig.client.readRaw({});
    await until(() => stream.over.aborted);
    let count = 0;
    await assert.rejects(
      async () => {
        for await (const _ of stream) count++;
      },
      { code: "data_loss", message: "the disk is broken" },
    );
    assert.equal(count, 10);
  });

  test("stops a producer nobody reads, in bounded memory, before and after the first message", async () => {
    let produced = 0;
    let done = false;
    await using rig = await rpcRig({
      readRaw: async function* () {
        try {
          for (;;) {
            await Promise.resolve();
            yield { data: bytes(CHUNK) };
            produced++;
          }
        } finally {
          done = true;
        }
      },
    });
    for (const readOne of [false, true]) {
      produced = 0;
      done = false;
      const stream = rig.client.readRaw({});
      const iterator = stream[Symbol.asyncIterator]();
      if (readOne) await iterator.next();
      else await until(() => produced > 0);
      assert.ok((await settled(() => produced)) <= 64, `${produced} chunks for a reader that stopped`);
      await stream[Symbol.asyncDispose]();
      await until(() => done);
    }
  });

  test("nobody reads holds up no other call of its connection", async () => {
    await using rig = await rpcRig({
      readRaw: async function* () {
        for (let index = 0; index < 512; index++) {
          await Promise.resolve();
          yield { data: bytes(64 << 10) };
        }
      },
      stat: () => Promise.resolve({}),
    });
    using channel = new RpcChannel({ target: rig.target, window: 4 << 20 });
    const client = channel.client(ContainerService);
    await using stalled = client.readRaw({});
    await stalled[Symbol.asyncIterator]().next();
    await new Promise((resolve) => setTimeout(resolve, 100));
    let size = 0;
    for await (const { data } of client.readRaw({})) size += data.length;
    assert.equal(size, 512 * (64 << 10));
    await client.stat({});
  });

  test("left in the middle of its loop ends the handler", async () => {
    let ended = false;
    await using rig = await rpcRig({
      readRaw: async function* (_, { signal }) {
        try {
          for (;;) {
            if (signal.aborted) return;
            await Promise.resolve();
            yield { data: bytes(100) };
          }
        } finally {
          ended = true;
        }
      },
    });
    for await (const _ of rig.client.readRaw({})) break;
    await until(() => ended);
  });

  test("whose deadline passes throws deadline_exceeded and ends a handler that waits", async () => {
    let ended = false;
    await using rig = await rpcRig({
      readRaw: async function* (_, { signal }) {
        yield { data: bytes(1) };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        ended = true;
      },
    });
    let count = 0;
    await assert.rejects(
      async () => {
        for await (const _ of rig.client.readRaw({}, { timeoutMs: 100 })) count++;
      },
      { code: "deadline_exceeded" },
    );
    assert.equal(count, 1);
    await until(() => ended);
  });

  test("whose signal aborts throws its reason", async () => {
    await using rig = await rpcRig({
      readRaw: async function* (_, { signal }) {
        yield { data: bytes(1) };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    const stop = new AbortController();
    await assert.rejects(
      async () => {
        for await (const _ of rig.client.readRaw({}, { signal: stop.signal })) {
          stop.abort(new Fault("unavailable", "the bot was stopped"));
        }
      },
      { code: "unavailable", message: "the bot was stopped" },
    );
    await assert.rejects(collect(rig.client.readRaw({}, { signal: AbortSignal.abort() })), {
      code: "cancelled",
    });
  });

  test("carries 16 MiB unchanged", async () => {
    await using rig = await rpcRig({
      readRaw: async function* () {
        for (let index = 0; index < 64; index++) {
          await Promise.resolve();
          yield { data: bytes(CHUNK, index) };
        }
      },
    });
    let index = 0;
    for await (const { data } of rig.client.readRaw({})) {
      assert.ok(Buffer.from(data).equals(bytes(CHUNK, index)), `chunk ${index}`);
      index++;
    }
    assert.equal(index, 64);
  });
});

describe("a client stream", { timeout: 60_000 }, () => {
  test("brings every message in order and then its end", async () => {
    await using rig = await rpcRig({
      writeRaw: async (requests) => {
        let text = "";
        for await (const request of requests) text += `${request.path};`;
        return { bytesWritten: BigInt(text.length), text };
      },
    });
    const paths = Array.from({ length: 200 }, (_, index) => ({ path: String(index) }));
    const answer = await rig.client.writeRaw(paths);
    assert.equal(answer.bytesWritten, BigInt(paths.map(({ path }) => `${path};`).join("").length));
    assert.equal((await rig.client.writeRaw([])).bytesWritten, 0n);
  });

  test("answered early is not pulled to its end", async () => {
    await using rig = await rpcRig({
      writeRaw: async (requests) => {
        for await (const _ of requests) throw new Fault("resource_exhausted", "no space left");
        return {};
      },
    });
    let pulled = 0;
    let returned = false;
    await assert.rejects(
      rig.client.writeRaw(
        (async function* () {
          try {
            for (; pulled < 100_000; pulled++) {
              yield { data: bytes(1_000) };
              if (pulled % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
            }
          } finally {
            returned = true;
          }
        })(),
      ),
      { code: "resource_exhausted", message: "no space left" },
    );
    await until(() => returned);
    assert.ok(pulled < 100_000);
  });

  test("whose source fails rejects with that error, and the handler sees a broken stream, not an end", async () => {
    let seen: unknown = "nothing";
    let begun = false;
    await using rig = await rpcRig({
      writeRaw: async (requests) => {
        try {
          for await (const _ of requests) begun = true;
          seen = "an end";
        } catch (error) {
          seen = error;
          throw error;
        }
        return {};
      },
    });
    await assert.rejects(
      rig.client.writeRaw(
        (async function* () {
          yield { data: bytes(1) };
          await until(() => begun);
          throw new Fault("not_found", "the local file went");
        })(),
      ),
      { code: "not_found", message: "the local file went" },
    );
    await until(() => seen !== "nothing");
    assert.ok(Fault.is(seen, "cancelled"), String(seen));
    assert.deepEqual(
      rig.lines.filter((line) => line.includes("rpc failed")),
      [],
    );
  });

  test("cancelled, or out of time, while it is idle is never taken for a finished one", async () => {
    const seen: unknown[] = [];
    let begun = 0;
    await using rig = await rpcRig({
      writeRaw: async (requests) => {
        try {
          for await (const _ of requests) begun++;
          seen.push("an end");
        } catch (error) {
          seen.push(error);
        }
        return {};
      },
    });
    for (let round = 1; round <= 20; round++) {
      const stop = new AbortController();
      const byTime = round % 2 === 0;
      const call = rig.client.writeRaw(
        (async function* () {
          yield { path: "x", data: bytes(round) };
          await until(() => begun === round);
          if (!byTime) stop.abort();
          await until(() => seen.length === round);
        })(),
        byTime ? { timeoutMs: 60 } : { signal: stop.signal },
      );
      await assert.rejects(call, { code: byTime ? "deadline_exceeded" : "cancelled" });
      await until(() => seen.length === round);
    }
    assert.ok(
      seen.every((reason) => Fault.is(reason, "cancelled")),
      String(seen),
    );
  });

  test("waits for a handler that does not read, in bounded memory", async () => {
    const go = Promise.withResolvers<void>();
    await using rig = await rpcRig({
      writeRaw: async (requests) => {
        await go.promise;
        let count = 0n;
        for await (const request of requests) count += BigInt(request.data.length);
        return { bytesWritten: count };
      },
    });
    let sent = 0;
    const call = rig.client.writeRaw(
      (async function* () {
        for (; sent < 120; sent++) {
          await Promise.resolve();
          yield { data: bytes(CHUNK) };
        }
      })(),
    );
    await until(() => sent > 0);
    assert.ok((await settled(() => sent)) <= 64, `${sent} chunks to a handler that does not read`);
    go.resolve();
    assert.equal((await call).bytesWritten, BigInt(120 * CHUNK));
  });

  test("cancelled while it waits for room rejects and ends the handler", async () => {
    let ended = false;
    await using rig = await rpcRig({
      writeRaw: async (_, { signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        ended = true;
        return {};
      },
    });
    const stop = new AbortController();
    let sent = 0;
    const call = rig.client.writeRaw(
      (async function* () {
        for (;;) {
          await Promise.resolve();
          yield { data: bytes(CHUNK) };
          sent++;
        }
      })(),
      { signal: stop.signal },
    );
    call.catch(() => undefined);
    await settled(() => sent);
    stop.abort();
    await assert.rejects(call, { code: "cancelled" });
    await until(() => ended);
  });
});

describe("a stream in both directions", { timeout: 60_000 }, () => {
  test("answers message by message", async () => {
    await using rig = await rpcRig({
      exec: async function* (requests) {
        for await (const request of requests) yield { data: request.stdinData };
      },
    });
    await using call = rig.client.exec();
    const answers = call.responses[Symbol.asyncIterator]();
    for (let index = 0; index < 50; index++) {
      await call.write({ stdinData: Buffer.from(String(index)) });
      const answer = await answers.next();
      assert.ok(answer.done !== true);
      assert.equal(Buffer.from(answer.value.data).toString(), String(index));
    }
    call.end();
    assert.equal((await answers.next()).done, true);
  });

  test("half-closed by the client still brings all that the handler sends later", async () => {
    await using rig = await rpcRig({
      exec: async function* (requests) {
        for await (const _ of requests);
        for (let index = 0; index < 100; index++) {
          await new Promise((resolve) => setImmediate(resolve));
          yield { exitCode: index };
        }
      },
    });
    for (let round = 0; round < 20; round++) {
      await using call = rig.client.exec();
      await call.write({ command: "x" });
      call.end();
      const answers = await collect(call.responses);
      assert.equal(answers.at(-1)?.exitCode, 99);
      assert.equal(answers.length, 100);
    }
  });

  test("says when the handler took it on, before any message", async () => {
    const go = Promise.withResolvers<void>();
    await using rig = await rpcRig({
      exec: async function* (_, { accept }) {
        accept();
        accept();
        await go.promise;
        yield { exitCode: 1 };
      },
    });
    await using call = rig.client.exec();
    await call.responses.accepted;
    go.resolve();
    assert.equal((await collect(call.responses)).length, 1);
  });

  test("ended by the handler rejects later writes and says why", async () => {
    await using rig = await rpcRig({
      exec: async function* (requests) {
        for await (const _ of requests) throw new Fault("failed_precondition", "not now");
        yield {};
      },
    });
    await using call = rig.client.exec();
    await call.write({ command: "x" });
    await assert.rejects(collect(call.responses), { code: "failed_precondition", message: "not now" });
    await assert.rejects(call.write({ command: "y" }), { code: "failed_precondition", message: "not now" });
  });

  test("disposed by the client aborts the handler, whose reader throws", async () => {
    let seen: unknown;
    await using rig = await rpcRig({
      exec: async function* (requests) {
        yield { exitCode: 1 };
        try {
          for await (const _ of requests);
          seen = "an end";
        } catch (error) {
          seen = error;
        }
      },
    });
    {
      await using call = rig.client.exec();
      await call.responses[Symbol.asyncIterator]().next();
    }
    await until(() => seen !== undefined);
    assert.ok(Fault.is(seen, "cancelled"), String(seen));
  });

  test("does not hang the handler's end on a client that goes on writing", async () => {
    let ended = 0;
    await using rig = await rpcRig({
      exec: async function* (requests) {
        const first = await requests[Symbol.asyncIterator]().next();
        yield { exitCode: first.done === true ? 0 : 7 };
        ended++;
      },
    });
    await using call = rig.client.exec();
    await call.write({ command: "x" });
    const answers = await collect(call.responses);
    assert.equal(answers[0]?.exitCode, 7);
    await until(() => ended === 1);
  });

  test("stays usable a hundred at once", async () => {
    await using rig = await rpcRig({
      exec: async function* (requests) {
        let sum = 0;
        for await (const request of requests) sum += request.timeoutSeconds;
        yield { exitCode: sum };
      },
    });
    const sums = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        await using call = rig.client.exec();
        for (let count = 0; count < 10; count++) await call.write({ timeoutSeconds: index });
        call.end();
        return (await collect(call.responses))[0]?.exitCode;
      }),
    );
    assert.deepEqual(
      sums,
      sums.map((_, index) => index * 10),
    );
  });
});
