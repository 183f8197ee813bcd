// The client of a test host's bot, as the host itself has it: mutual TLS, identity checked, over the bridge.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Workspace } from "../../src/core/workspace.ts";
import { Pki } from "../../src/host/pki.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Pool } from "../../src/remote/pool.ts";
import type { TestHost } from "./host.ts";

export interface BotClient extends AsyncDisposable {
  readonly workspace: Workspace;
}

/** Connects to a running bot past the host's API. */
export async function botClient(
  host: TestHost,
  bot: { readonly id: string; readonly ip: string },
): Promise<BotClient> {
  await using stack = new AsyncDisposableStack();
  const pki = stack.use(await Pki.open({ directory: join(host.dataDir, "pki"), log: silentLogger() }));
  const identity = JSON.parse(
    await readFile(join(host.runDir, "bots", bot.id, "id", "identity.json"), "utf8"),
  ) as { boot_id: string };
  const endpoint = {
    botId: bot.id,
    bootId: identity.boot_id,
    target: `${bot.ip}:9090`,
    tls: pki.clientTls(bot.id),
  };
  const pool = stack.use(new Pool({ log: silentLogger(), endpoints: () => Promise.resolve(endpoint) }));
  const workspace = await pool.workspace(bot.id);
  const owned = stack.move();
  return {
    workspace,
    [Symbol.asyncDispose]: async () => {
      await owned.disposeAsync();
    },
  };
}
