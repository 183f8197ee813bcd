// Names of bots and of what belongs to them.
import { Fault } from "../lib/fault.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Label on every container that names its bot. The only label the original sets. */
export const BOT_LABEL = "mcp.bot_id";

/** Port every agent serves on. */
export const AGENT_PORT = 9090;

/** Whether the text is a bot id: a lower-case UUID. */
export function isBotId(text: string): boolean {
  return UUID.test(text);
}

/** A bot name: lower-case letters, digits and dashes, at most 63, usable as a host name. @throws Fault invalid_argument */
export function checkBotName(name: string): string {
  if (!NAME.test(name) || name.endsWith("-") || UUID.test(name)) {
    throw new Fault("invalid_argument", `Cannot use ${JSON.stringify(name)} as a bot name`, {
      hint: "Use 1 to 63 lower-case letters, digits and dashes, starting with a letter or digit",
    });
  }
  return name;
}

/** The containerd id of a bot's container. */
export function containerIdOf(botId: string): string {
  return `mcp-${botId}`;
}

/** The DNS name in a bot's agent certificate. */
export function agentNameOf(botId: string): string {
  return `${botId}.bot.memoh`;
}
