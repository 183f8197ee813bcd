// Certificates of running agents are renewed in place, well before they end and not earlier.
import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { WorkspaceRecord } from "../../../src/core/bot.ts";
import { BotFiles } from "../../../src/host/bot-files.ts";
import { Lifecycle, type LifecycleParts } from "../../../src/host/lifecycle.ts";
import { Pki } from "../../../src/host/pki.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const BOT = "0b0e5c1e-0000-4000-8000-000000000001";
const DAY = 86_400_000;

test("a certificate that nears its end is renewed with its key, a fresh one is left alone", async () => {
  const dir = await mkdtemp("/tmp/memoh-renewal-");
  try {
    let clock = Date.now() - 320 * DAY;
    using pki = await Pki.open({ directory: join(dir, "pki"), log: silentLogger(), now: () => clock });
    const files = new BotFiles(dir);
    const old = await pki.mintAgentIdentity(BOT, "boot-1");
    await files.write({
      botId: BOT,
      botName: "demo",
      bootId: "boot-1",
      identity: old,
      commandEnv: {},
      resolvConf: "",
      extraCa: undefined,
      timezoneFile: undefined,
    });
    clock = Date.now();
    const parts: Pick<LifecycleParts, "files" | "mintIdentity"> = {
      files,
      mintIdentity: (botId, bootId) => pki.mintAgentIdentity(botId, bootId),
    };
    const lifecycle = new Lifecycle(parts as LifecycleParts);
    const workspace = { botId: BOT, bootId: "boot-1" } as WorkspaceRecord;
    assert.equal(await lifecycle.renewIdentity(workspace), true);
    const id = join(files.dirOf(BOT), "id");
    const renewed = new X509Certificate(await readFile(join(id, "agent.crt")));
    assert.ok(Date.parse(renewed.validTo) - clock > 300 * DAY);
    assert.ok(renewed.checkPrivateKey(createPrivateKey(await readFile(join(id, "agent.key")))));
    assert.equal(renewed.subjectAltName, new X509Certificate(old.certificate).subjectAltName);
    assert.equal(await lifecycle.renewIdentity(workspace), false);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test("a bot that has no certificate, or does not run, gets none", async () => {
  const files = new BotFiles("/tmp/memoh-renewal-nothing");
  const parts: Pick<LifecycleParts, "files"> = { files };
  const lifecycle = new Lifecycle(parts as LifecycleParts);
  assert.equal(await lifecycle.renewIdentity({ botId: BOT, bootId: undefined } as WorkspaceRecord), false);
  assert.equal(await lifecycle.renewIdentity({ botId: BOT, bootId: "boot-1" } as WorkspaceRecord), false);
});
