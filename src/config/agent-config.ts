// The agent's configuration: flags over environment over defaults, once, typed and frozen.
import { homedir } from "node:os";
import { resolve } from "node:path";
import { SYSTEM_PATH } from "../lib/command.ts";
import { Fault } from "../lib/fault.ts";
import type { LogOptions } from "../lib/log.ts";
import { nearest } from "../lib/nearest.ts";

/** Where an agent listens. */
export type AgentListen =
  /** Mutual TLS unless `insecure`, which is for loopback only. */
  | {
      readonly kind: "tcp";
      readonly host: string;
      /** 0 takes a free one. */
      readonly port: number;
      readonly insecure: boolean;
    }
  /** In the clear; the socket is 0600. */
  | { readonly kind: "unix"; readonly path: string };

export interface AgentConfig {
  readonly listen: AgentListen;
  /** Absolute; `/data` in a container. */
  readonly workDir: string;
  /** Holds `identity.json` and, for TLS, `agent.crt`, `agent.key` and `host-ca.crt`. Undefined: a made-up identity. */
  readonly identityDir: string | undefined;
  /** Files copied into an empty work directory. */
  readonly templateDir: string;
  readonly log: { readonly level: LogOptions["level"]; readonly format: LogOptions["format"] };
  /** What commands inherit when the identity names no environment. */
  readonly commandEnv: Readonly<Record<string, string>>;
}

type Env = Readonly<Record<string, string | undefined>>;

const DEFAULT_WORK_DIR = "/data";
const DEFAULT_IDENTITY_DIR = "/run/memoh/id";
const DEFAULT_TEMPLATE_DIR = "/opt/mcp-template";
const DEFAULT_PORT = 9090;
/** Longest path of a unix socket on Linux, without the final NUL. */
const SOCKET_PATH_MAX = 107;

const FLAGS = ["listen", "work-dir", "identity-dir", "template-dir", "log-level", "log-format"] as const;
type Flag = (typeof FLAGS)[number];
const LEVELS: readonly LogOptions["level"][] = ["trace", "debug", "info", "warn", "error", "fatal", "silent"];

/**
 * Reads the agent's configuration.
 * @param argv what follows `memoh agent`
 * @param env the process's own when absent; `MCP_LISTEN_ADDR` is honoured, as in the original
 * @throws Fault invalid_argument
 */
export function loadAgentConfig(argv: readonly string[], env: Env = process.env): AgentConfig {
  const { insecure, values } = parseFlags(argv);
  const listen = listenOf(values.get("listen") ?? env["MCP_LISTEN_ADDR"], insecure);
  const secure = listen.kind === "tcp" && !listen.insecure;
  const identityDir = values.get("identity-dir") ?? (secure ? DEFAULT_IDENTITY_DIR : undefined);
  return Object.freeze({
    listen: Object.freeze(listen),
    workDir: resolve(values.get("work-dir") ?? DEFAULT_WORK_DIR),
    identityDir: identityDir === undefined ? undefined : resolve(identityDir),
    templateDir: resolve(values.get("template-dir") ?? DEFAULT_TEMPLATE_DIR),
    log: Object.freeze({
      level: oneOf("log-level", values.get("log-level") ?? "info", LEVELS),
      format: oneOf("log-format", values.get("log-format") ?? "text", ["text", "json"] as const),
    }),
    commandEnv: Object.freeze(commandEnv(env)),
  });
}

function parseFlags(argv: readonly string[]): { insecure: boolean; values: Map<Flag, string> } {
  const values = new Map<Flag, string>();
  let insecure = false;
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [, name = "", inline] = /^--([a-z-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (name === "insecure" && inline === undefined) {
      insecure = true;
      continue;
    }
    const flag = FLAGS.find((known) => known === name);
    if (flag === undefined) {
      const guess = nearest(name, [...FLAGS, "insecure"]);
      throw new Fault("invalid_argument", `Cannot use ${word}: memoh agent has no such option`, {
        hint: guess === undefined ? "See memoh agent --help" : `Did you mean --${guess}?`,
      });
    }
    const value = inline ?? rest.shift();
    if (value === undefined || value === "") {
      throw new Fault("invalid_argument", `Cannot use --${flag} without a value`);
    }
    values.set(flag, value);
  }
  return { insecure, values };
}

function oneOf<T extends string>(flag: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) {
    throw new Fault("invalid_argument", `Cannot use ${JSON.stringify(value)} as --${flag}`, {
      hint: `Use one of ${allowed.join(", ")}`,
    });
  }
  return found;
}

function listenOf(address: string | undefined, insecure: boolean): AgentListen {
  const fallback = insecure ? `127.0.0.1:${DEFAULT_PORT}` : `0.0.0.0:${DEFAULT_PORT}`;
  const text = address === undefined || address === "" ? fallback : address;
  if (text.startsWith("unix:")) return { kind: "unix", path: socketPath(text) };
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535) {
    throw new Fault("invalid_argument", `Cannot listen on ${text}: not an address`, {
      hint: "Use HOST:PORT, [IPv6]:PORT or unix:/path",
    });
  }
  // Go's `:9090`, as in the original, is every interface.
  const named = bracketed ?? plain ?? "";
  const host = named === "" ? "0.0.0.0" : named;
  if (insecure && !isLoopback(host)) {
    throw new Fault(
      "invalid_argument",
      `Cannot listen on ${text} without TLS: it is not a loopback address`,
      {
        hint: "Use 127.0.0.1, [::1] or a unix socket with --insecure, or leave --insecure out",
      },
    );
  }
  return { kind: "tcp", host, port, insecure };
}

function socketPath(text: string): string {
  // unix:/path and unix:///path, as gRPC has it.
  const path = resolve(text.slice("unix:".length).replace(/^\/\/(?=\/)/, ""));
  if (text === "unix:" || Buffer.byteLength(path) > SOCKET_PATH_MAX) {
    throw new Fault("invalid_argument", `Cannot listen on ${text}: the path is empty or too long`, {
      hint: `Use a path of at most ${SOCKET_PATH_MAX} bytes`,
    });
  }
  return path;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/** Variables that steer this program or its runtime, and must not steer the commands of a bot. */
const OWN_VARIABLE = /^(?:BUN_.*|NODE_OPTIONS|NODE_CHANNEL_.*|NODE_V8_COVERAGE|MEMOH_.*|MCP_LISTEN_ADDR)$/;

function commandEnv(env: Env): Record<string, string> {
  const result: Record<string, string> = { PATH: SYSTEM_PATH, HOME: homeOf() };
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && !OWN_VARIABLE.test(name)) result[name] = value;
  }
  return result;
}

/** An image may have no /etc/passwd and no HOME: then, as in runc, home is the root. */
function homeOf(): string {
  try {
    return homedir();
  } catch {
    return "/";
  }
}
