// The files memoh writes for one bot and mounts read-only into its container: identity and the name service files.
import { createHash, X509Certificate } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { agentNameOf } from "../core/bot-id.ts";
import type { ReadOnlyMount } from "../core/runtime.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errnoOf } from "../lib/errno.ts";

/** Where an agent finds who it is. */
export const IDENTITY_DIR = "/run/memoh/id";

/** Keys and names of one start of a bot. All PEM. */
export interface AgentIdentity {
  readonly certificate: string;
  readonly privateKey: string;
  /** The CA of the only client the agent lets in. */
  readonly hostCa: string;
}

export interface BotFilesInput {
  readonly botId: string;
  readonly botName: string;
  readonly bootId: string;
  readonly identity: AgentIdentity;
  /** Environment of commands: the image's. */
  readonly commandEnv: Readonly<Record<string, string>>;
  readonly resolvConf: string;
  /** CA bundle for programs inside, or undefined. */
  readonly extraCa: string | undefined;
  readonly timezoneFile: string | undefined;
}

/** Files under `<run>/bots/<bot id>`. On a tmpfs: keys of agents never reach a disk. */
export class BotFiles {
  readonly #runDir: string;

  constructor(runDir: string) {
    this.#runDir = join(runDir, "bots");
  }

  dirOf(botId: string): string {
    return join(this.#runDir, botId);
  }

  /** The mounts of a bot; known before the files are written. */
  mounts(botId: string, input: { readonly extraCa: boolean; readonly timezone: boolean }): ReadOnlyMount[] {
    const directory = this.dirOf(botId);
    const etc = (name: string) => ({ source: join(directory, "etc", name), target: `/etc/${name}` });
    return [
      { source: join(directory, "id"), target: IDENTITY_DIR },
      etc("resolv.conf"),
      etc("hosts"),
      etc("hostname"),
      etc("machine-id"),
      ...(input.timezone ? [etc("localtime")] : []),
      ...(input.extraCa ? [{ source: join(directory, "etc", "extra-ca.crt"), target: EXTRA_CA_PATH }] : []),
    ];
  }

  /** Writes everything for a start. Repeating it with the same input changes nothing. */
  async write(input: BotFilesInput): Promise<void> {
    const directory = this.dirOf(input.botId);
    const id = join(directory, "id");
    const etc = join(directory, "etc");
    await mkdir(id, { recursive: true, mode: 0o700 });
    await mkdir(etc, { recursive: true, mode: 0o755 });
    const identity = {
      bot_id: input.botId,
      boot_id: input.bootId,
      name: agentNameOf(input.botId),
      command_env: input.commandEnv,
    };
    await Promise.all([
      put(join(id, "agent.key"), input.identity.privateKey, 0o600),
      put(join(id, "agent.crt"), input.identity.certificate, 0o644),
      put(join(id, "host-ca.crt"), input.identity.hostCa, 0o644),
      put(join(id, "identity.json"), `${JSON.stringify(identity, undefined, 2)}\n`, 0o644),
      put(join(etc, "resolv.conf"), input.resolvConf, 0o644),
      put(join(etc, "hosts"), hostsFile(input.botName), 0o644),
      put(join(etc, "hostname"), `${input.botName}\n`, 0o644),
      put(join(etc, "machine-id"), `${machineIdOf(input.botId)}\n`, 0o444),
      ...(input.timezoneFile === undefined
        ? []
        : [put(join(etc, "localtime"), await readFile(input.timezoneFile), 0o644)]),
      ...(input.extraCa === undefined
        ? []
        : [put(join(etc, "extra-ca.crt"), await readFile(input.extraCa), 0o644)]),
    ]);
  }

  /** When the certificate of the bot's agent ends; undefined when there is none. */
  async certificateEnds(botId: string): Promise<Date | undefined> {
    try {
      const pem = await readFile(join(this.dirOf(botId), "id", "agent.crt"));
      return new Date(new X509Certificate(pem).validTo);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** Gives a running agent a new certificate in place. The agent looks at the certificate, so the key comes first. */
  async renewIdentity(botId: string, identity: AgentIdentity): Promise<void> {
    const id = join(this.dirOf(botId), "id");
    await put(join(id, "agent.key"), identity.privateKey, 0o600);
    await put(join(id, "agent.crt"), identity.certificate, 0o644);
  }

  /** Environment of commands as it was written last; undefined when nothing was. */
  async lastCommandEnv(botId: string): Promise<Record<string, string> | undefined> {
    try {
      const text = await readFile(join(this.dirOf(botId), "id", "identity.json"), "utf8");
      const parsed = JSON.parse(text) as { command_env?: Record<string, string> };
      return parsed.command_env;
    } catch (error) {
      if (errnoOf(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
      throw error;
    }
  }

  /** Removes a bot's files. */
  async remove(botId: string): Promise<void> {
    await rm(this.dirOf(botId), { recursive: true, force: true });
  }
}

/** Where the extra CA bundle stands inside. */
export const EXTRA_CA_PATH = "/run/memoh/extra-ca.crt";

/** Variables that make Node, curl, git and Python trust the extra CA. */
export function extraCaEnv(): Record<string, string> {
  return {
    NODE_EXTRA_CA_CERTS: EXTRA_CA_PATH,
    SSL_CERT_FILE: EXTRA_CA_PATH,
    CURL_CA_BUNDLE: EXTRA_CA_PATH,
    GIT_SSL_CAINFO: EXTRA_CA_PATH,
    PIP_CERT: EXTRA_CA_PATH,
    REQUESTS_CA_BUNDLE: EXTRA_CA_PATH,
  };
}

/** The bot's own name is a loopback address, as Debian does it: it never changes and needs no network. */
function hostsFile(name: string): string {
  return `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 ${name}\n`;
}

/** Written anew at every start, so a crash may take it. */
async function put(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  await writeFileAtomic(path, content, mode, false);
}

/** Fresh per bot and the same over restarts: derived from the bot's id, so a fork has its own. */
function machineIdOf(botId: string): string {
  return createHash("sha256").update(`memoh machine-id ${botId}`).digest("hex").slice(0, 32);
}
