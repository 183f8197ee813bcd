// Unary calls: values, Faults, cancellation, deadlines and sizes, over a real connection.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CODES, type Code, Fault } from "../../../src/lib/fault.ts";
import { MAX_MESSAGE } from "../../../src/rpc/server.ts";
import { bytes, rpcRig, until } from "./rig.ts";

describe("a unary call", { timeout: 30_000 }, () => {
  test("carries the request there and the answer back, over a socket and over TCP", async () => {
    for (const tcp of [false, true]) {
      await using rig = await rpcRig(
        { stat: (request) => Promise.resolve({ entry: { path: `<${request.path}>`, size: 2n ** 40n } }) },
        { tcp },
      );
      const { entry } = await rig.client.stat({ path: "ä/b" });
      assert.deepEqual([entry?.path, entry?.size], ["<ä/b>", 2n ** 40n]);
    }
  });

  test("fails with the code, message and hint of the handler's Fault, whatever the code", async () => {
    let code: Code = "internal";
    await using rig = await rpcRig({
      stat: () => Promise.reject(new Fault(code, "Cannot: 50 % of ünicode\nline", { hint: "Do ä thing" })),
    });
    for (code of Object.keys(CODES) as Code[]) {
      await assert.rejects(rig.client.stat({}), (error) => {
        assert.ok(Fault.is(error, code), String(error));
        assert.equal(error.hint, "Do ä thing");
        const suffix = code === "internal" ? / \(reference \w+\)$/ : /$/;
        assert.match(error.message, new RegExp(`^Cannot: 50 % of ünicode\nline${suffix.source}`));
        return true;
      });
    }
  });

  test("tells a foreign error's message with a reference and logs the rest", async () => {
    await using rig = await rpcRig({ stat: () => Promise.reject(new TypeError("x is not a thing")) });
    await assert.rejects(rig.client.stat({}), {
      code: "internal",
      message: /^x is not a thing \(reference \w+\)$/,
    });
    assert.match(rig.lines.join(""), /"rpc":"Stat","reference":"\w+"/);
  });

  test("answers UNIMPLEMENTED for an rpc without handler", async () => {
    await using rig = await rpcRig({});
    await assert.rejects(rig.client.stat({}), { code: "unimplemented" });
  });

  test("that is cancelled rejects with the signal's reason and aborts the handler", async () => {
    let aborted = false;
    let running = false;
    await using rig = await rpcRig({
      stat: async (_, { signal }) => {
        running = true;
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted = true;
        return {};
      },
    });
    const stop = new AbortController();
    const call = rig.client.stat({}, { signal: stop.signal });
    call.catch(() => undefined);
    await until(() => running);
    stop.abort(new Fault("aborted", "the person left"));
    await assert.rejects(call, { code: "aborted", message: "the person left" });
    await until(() => aborted);
  });

  test("with a signal that has aborted is not made at all", async () => {
    let calls = 0;
    await using rig = await rpcRig({ stat: () => Promise.resolve(++calls > 0 ? {} : {}) });
    await assert.rejects(rig.client.stat({}, { signal: AbortSignal.abort() }), { code: "cancelled" });
    await rig.client.stat({});
    assert.equal(calls, 1);
  });

  test("past its deadline fails with deadline_exceeded and aborts the handler", async () => {
    let aborted = false;
    await using rig = await rpcRig({
      stat: async (_, { signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted = true;
        return {};
      },
    });
    await assert.rejects(rig.client.stat({}, { timeoutMs: 50 }), { code: "deadline_exceeded" });
    await until(() => aborted);
  });

  test("takes messages up to the limit and refuses larger ones in both directions, then goes on", async () => {
    await using rig = await rpcRig({
      writeFile: () => Promise.resolve({}),
      readFile: (request) => Promise.resolve({ content: "x".repeat(request.nLines) }),
    });
    await rig.client.writeFile({ path: "p", content: bytes(MAX_MESSAGE - 1_000) });
    assert.equal(
      (await rig.client.readFile({ nLines: MAX_MESSAGE - 1_000 })).content.length,
      MAX_MESSAGE - 1_000,
    );
    await assert.rejects(rig.client.writeFile({ content: bytes(MAX_MESSAGE + 1) }), {
      code: "resource_exhausted",
    });
    await assert.rejects(rig.client.readFile({ nLines: MAX_MESSAGE + 1 }), { code: "resource_exhausted" });
    await rig.client.writeFile({});
  });

  test("to an answer that cannot be encoded fails and leaves the server well", async () => {
    await using rig = await rpcRig({
      stat: (request) =>
        Promise.resolve({ entry: { size: request.path === "bad" ? (JSON.parse('"text"') as bigint) : 1n } }),
    });
    await assert.rejects(rig.client.stat({ path: "bad" }), { code: "internal" });
    assert.equal((await rig.client.stat({})).entry?.size, 1n);
  });

  test("is one of hundreds at once", async () => {
    await using rig = await rpcRig({ stat: (request) => Promise.resolve({ entry: { path: request.path } }) });
    const answers = await Promise.all(
      Array.from({ length: 300 }, (_, index) => rig.client.stat({ path: String(index) })),
    );
    assert.deepEqual(
      answers.map((answer) => answer.entry?.path),
      answers.map((_, index) => String(index)),
    );
  });

  test("to nobody fails at once as unavailable", async () => {
    const rig = await rpcRig({});
    await rig.server.close(0);
    await assert.rejects(rig.client.stat({}), { code: "unavailable" });
    await rig[Symbol.asyncDispose]();
  });
});

describe("closing a server", { timeout: 30_000 }, () => {
  test("lets running calls finish within the grace and refuses new ones", async () => {
    const finish = Promise.withResolvers<void>();
    let running = false;
    await using rig = await rpcRig({
      stat: async () => {
        running = true;
        await finish.promise;
        return { entry: { path: "done" } };
      },
    });
    const call = rig.client.stat({});
    await until(() => running);
    const closed = rig.server.close(20_000);
    await assert.rejects(rig.client.stat({}), { code: "unavailable" });
    finish.resolve();
    assert.equal((await call).entry?.path, "done");
    await closed;
  });

  test("cuts what does not finish within the grace", async () => {
    let aborted = false;
    let running = false;
    await using rig = await rpcRig({
      stat: async (_, { signal }) => {
        signal.addEventListener("abort", () => {
          aborted = true;
        });
        running = true;
        await new Promise(() => undefined);
        return {};
      },
    });
    const call = rig.client.stat({});
    call.catch(() => undefined);
    await until(() => running);
    await rig.server.close(20);
    await assert.rejects(call, (error) => Fault.is(error, "unavailable", "cancelled", "internal"));
    await until(() => aborted);
  });

  test("does nothing the second time", async () => {
    const rig = await rpcRig({});
    await rig.server.close(0);
    await rig.server.close(0);
    await rig[Symbol.asyncDispose]();
  });
});
