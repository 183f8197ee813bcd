// Bots and workspaces in a test's store.
import { randomUUID } from "node:crypto";
import type { LastError } from "../../src/core/bot.ts";
import type { Store } from "../../src/core/store.ts";

/** An error as a reconciler records it, with text that jsonb refuses. */
export const ERROR: LastError = {
  code: "unavailable",
  message: "no answer \0 \ud800",
  hint: "look",
  step: "hello",
  at: new Date("2026-01-02T03:04:05.678Z"),
  retryable: true,
};

/** A bot of the user admin. */
export async function makeBot(store: Store, name = `bot-${randomUUID().slice(0, 8)}`): Promise<string> {
  const id = randomUUID();
  await store.ensureUser({ id: "admin", name: "admin", role: "admin" });
  await store.bots.create({ id, name, ownerId: "admin" });
  return id;
}

/** A bot with a workspace that is to run. */
export async function makeWorkspace(store: Store, name?: string): Promise<string> {
  const botId = await makeBot(store, name);
  await store.workspaces.create({
    botId,
    containerId: `mcp-${botId}`,
    image: "docker.io/library/x:1",
    limits: { memory: 5, cpus: 0.5 },
    desired: "running",
  });
  return botId;
}
