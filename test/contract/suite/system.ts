// The agent about itself.
import assert from "node:assert/strict";
import { test } from "node:test";
import { gather } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

export function systemTests(ground: Ground): void {
  test("hello tells who answers and what it is", async () => {
    const hello = await ground.workspace.hello();
    assert.match(hello.botId, /^[0-9a-f-]{36}$/);
    assert.ok(hello.bootId.length > 0);
    assert.match(hello.runtime, /^(node|bun) \d/);
    assert.ok(hello.version.length > 0 && hello.commit.length > 0);
  });

  test("health counts the processes that run", async () => {
    const before = await ground.workspace.health();
    await using _running = await ground.workspace.exec({ command: "sleep 1000" });
    const during = await ground.workspace.health();
    assert.equal(during.processes, before.processes + 1);
    assert.ok(during.rssBytes > 1 << 20);
    assert.ok(during.uptimeMs >= before.uptimeMs);
  });

  test("logs end by themselves when they are not followed", async () => {
    const all = (await gather(ground.workspace.logs())).toString();
    assert.match(all, /agent/);
    const tail = (await gather(ground.workspace.logs({ tailLines: 1 }))).toString();
    assert.equal(tail.split("\n").filter((line) => line !== "").length, 1);
  });

  test("following logs is left at any time", async () => {
    const controller = new AbortController();
    for await (const _ of ground.workspace.logs({ follow: true, signal: controller.signal })) break;
    await ground.workspace.health();
  });
}
