// Who this agent is: files the host wrote for this start of the container.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";

export interface AgentIdentity {
  readonly botId: string;
  readonly bootId: string;
  /** The image's environment, which commands get; the agent itself runs with a clean one. */
  readonly commandEnv: Readonly<Record<string, string>> | undefined;
}

const HINT = "The host writes the identity before it starts the agent; outside a container use --insecure";

/**
 * Reads `identity.json`: `{"bot_id", "boot_id", "command_env"?}`.
 * @param directory undefined for an agent that nobody's bot is behind: it names itself `local`
 * @throws Fault failed_precondition
 */
export async function readIdentity(directory: string | undefined): Promise<AgentIdentity> {
  if (directory === undefined) return { botId: "local", bootId: randomUUID(), commandEnv: undefined };
  const path = join(directory, "identity.json");
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) throw malformed(path, "it is not JSON", error);
    const fault = faultFromErrno(error, `Cannot read the identity ${path}`);
    throw new Fault("failed_precondition", fault.message, { cause: error, hint: HINT });
  }
  const record = isRecord(value) ? value : {};
  const { bot_id: botId, boot_id: bootId, command_env: env } = record;
  if (typeof botId !== "string" || botId === "" || typeof bootId !== "string" || bootId === "") {
    throw malformed(path, "bot_id and boot_id must be texts");
  }
  return { botId, bootId, commandEnv: env === undefined ? undefined : texts(env, path) };
}

function texts(value: unknown, path: string): Record<string, string> {
  if (!isRecord(value)) throw malformed(path, "command_env must be an object");
  const result: Record<string, string> = {};
  for (const [name, text] of Object.entries(value)) {
    if (typeof text !== "string") throw malformed(path, `command_env.${name} must be a text`);
    result[name] = text;
  }
  return result;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function malformed(path: string, why: string, cause?: unknown): Fault {
  return new Fault("failed_precondition", `Cannot use the identity ${path}: ${why}`, { cause, hint: HINT });
}
