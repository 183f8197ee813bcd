// The contract of a workspace, kept over mutual TLS through a pool, as between a host and a bot.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pki } from "../../src/host/pki.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Pool } from "../../src/remote/pool.ts";
import { testAgent } from "../support/agent.ts";
import { BOT } from "../support/fake-agent.ts";
import { workspaceSuite } from "./workspace-suite.ts";

workspaceSuite("workspace over mutual TLS", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await mkdtemp(join(tmpdir(), "memoh-contract-tls-"));
  stack.defer(async () => {
    await rm(home, { recursive: true, force: true });
  });
  const pki = stack.use(await Pki.open({ directory: join(home, "pki"), log: silentLogger() }));
  const identity = await pki.mintAgentIdentity(BOT, "boot-1");
  await writeFile(join(home, "identity.json"), JSON.stringify({ bot_id: BOT, boot_id: "boot-1" }));
  await writeFile(join(home, "agent.crt"), identity.certificate);
  await writeFile(join(home, "agent.key"), identity.privateKey);
  await writeFile(join(home, "host-ca.crt"), identity.hostCa);
  const agent = stack.use(await testAgent({ flags: ["--listen=127.0.0.1:0", `--identity-dir=${home}`] }));
  const pool = stack.use(
    new Pool({
      log: silentLogger(),
      endpoints: async (botId) =>
        await Promise.resolve({
          botId,
          bootId: "boot-1",
          target: agent.target,
          tls: pki.clientTls(botId),
        }),
    }),
  );
  const workspace = await pool.workspace(BOT);
  const owned = stack.move();
  return {
    workspace,
    dir: agent.workDir,
    [Symbol.asyncDispose]: async () => {
      await owned[Symbol.asyncDispose]();
    },
  };
});
