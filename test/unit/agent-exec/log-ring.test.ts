// The agent's log ring: bounded, in order, followed without loss or without silence about it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createAgentLog } from "../../../src/agent/agent-log.ts";
import { LogRing } from "../../../src/agent/log-ring.ts";

async function text(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  let all = "";
  for await (const chunk of chunks) all += Buffer.from(chunk).toString("utf8");
  return all;
}

describe("the log ring", () => {
  test("keeps the last lines within its count", async () => {
    const ring = new LogRing(1 << 20, 3);
    for (let index = 0; index < 10; index++) ring.add(`line ${index}`);
    assert.equal(await text(ring.read({})), "line 7\nline 8\nline 9\n");
    assert.equal(await text(ring.read({ tailLines: 2 })), "line 8\nline 9\n");
    assert.equal(await text(ring.read({ tailLines: 99 })), "line 7\nline 8\nline 9\n");
  });

  test("keeps the last lines within its bytes, and cuts a line longer than itself", async () => {
    const ring = new LogRing(100, 1_000);
    for (let index = 10; index < 60; index++) ring.add(`line ${index}\n`);
    const kept = await text(ring.read({}));
    assert.ok(kept.length <= 100 && kept.endsWith("line 59\n"), kept);
    ring.add("x".repeat(1_000));
    assert.equal((await text(ring.read({}))).length, 100);
  });

  test("is empty at first", async () => {
    assert.equal(await text(new LogRing().read({})), "");
  });

  test("hands followers what comes until they stop", async () => {
    const ring = new LogRing();
    ring.add("old");
    const stop = new AbortController();
    const reader = ring.read({ follow: true, tailLines: 1, signal: stop.signal });
    assert.equal(Buffer.from((await reader.next()).value ?? []).toString(), "old\n");
    const pending = reader.next();
    ring.add("new");
    assert.equal(Buffer.from((await pending).value ?? []).toString(), "new\n");
    const last = reader.next();
    stop.abort();
    await assert.rejects(last, { code: "cancelled" });
  });

  test("tells a follower that fell behind how much it missed", async () => {
    const ring = new LogRing(1 << 20, 5);
    ring.add("first");
    const reader = ring.read({ follow: true });
    await reader.next();
    for (let index = 0; index < 20; index++) ring.add(`line ${index}`);
    assert.equal(Buffer.from((await reader.next()).value ?? []).toString(), "... 15 lines missed\n");
    assert.match(Buffer.from((await reader.next()).value ?? []).toString(), /^line 15\n.*line 19\n$/s);
    await reader.return(undefined);
  });

  test("gets what the logger writes, secrets redacted, and so does the other sink", async () => {
    const lines: string[] = [];
    const { log, ring } = createAgentLog({ level: "info", format: "text" }, (line) => void lines.push(line));
    log.info({ token: "t0p", file: "a" }, "hello");
    log.debug("not this");
    const kept = await text(ring.read({}));
    assert.equal(kept, lines.join(""));
    assert.match(kept, /hello/);
    assert.doesNotMatch(kept, /t0p|not this/);
  });
});
