// The host's configuration: file, then environment, then flags, once, typed and frozen.
import { createHash } from "node:crypto";
import { isAbsolute, join } from "node:path";
import { Fault } from "../lib/fault.ts";
import { readConfigFile } from "./config-file.ts";
import { envNameOf, flagNameOf, KEY_NAMES, KEYS, type Key } from "./keys.ts";
import type { RegistryConfig } from "./registries.ts";
import type { Secret } from "./secret.ts";
import { convert, type Value } from "./values.ts";

export interface HostConfig {
  readonly instance: string;
  readonly configFile: string;
  readonly dataDir: string;
  readonly runDir: string;
  /** `<run>/memoh.sock` */
  readonly socketPath: string;
  /** `<run>/host.pid` */
  readonly pidFile: string;
  readonly log: {
    readonly level: "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
    readonly format: "text" | "json";
  };
  readonly http: {
    /** `host:port`, or empty. */
    readonly addr: string;
    readonly allowedHosts: readonly string[];
    readonly maxBody: number;
    readonly maxUpload: number;
  };
  readonly auth: { readonly jwtSecret: Secret | undefined };
  readonly containerd: {
    /** Empty: memoh runs its own. */
    readonly socketPath: string;
    readonly namespace: string;
    readonly snapshotter: string;
    readonly runtimeBinary: string;
  };
  readonly database: { readonly url: Secret | undefined; readonly migrate: boolean };
  readonly network: {
    readonly bridge: string;
    readonly subnet: string;
    readonly pluginDir: string;
    readonly nameservers: readonly string[];
    readonly deny: readonly string[];
  };
  readonly image: { readonly default: string };
  readonly limits: {
    readonly memory: number;
    readonly pids: number;
    readonly cpus: number;
    readonly diskReserve: number;
  };
  readonly agent: { readonly extraCa: string; readonly timezone: string };
  readonly registries: readonly RegistryConfig[];
}

/** Where the values come from. The environment is the process's own only in config/. */
export interface Sources {
  readonly instance?: string | undefined;
  /** `--config FILE` */
  readonly configFile?: string | undefined;
  /** By flag name: `http-addr`. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

const INSTANCE = /^[a-z][a-z0-9-]{0,30}$/;
/** Longest path of a unix socket on Linux, without the final NUL. */
const SOCKET_PATH_MAX = 107;

/** The instance a command means: `--instance`, MEMOH_INSTANCE, or `memoh`. @throws Fault invalid_argument */
export function instanceOf(sources: Sources): string {
  const instance = sources.instance ?? (sources.env ?? process.env)["MEMOH_INSTANCE"] ?? "memoh";
  if (!INSTANCE.test(instance)) {
    throw new Fault("invalid_argument", `Cannot use ${JSON.stringify(instance)} as an instance name`, {
      hint: "Use up to 31 lower-case letters, digits and dashes, starting with a letter",
    });
  }
  return instance;
}

/** Reads everything once. @throws Fault invalid_argument that names the key and where its value came from */
export async function loadHostConfig(sources: Sources = {}): Promise<HostConfig> {
  const instance = instanceOf(sources);
  const env = sources.env ?? process.env;
  const configFile = sources.configFile ?? env["MEMOH_CONFIG"] ?? `/etc/${instance}/config.toml`;
  const explicit = sources.configFile !== undefined || env["MEMOH_CONFIG"] !== undefined;
  const file = await readConfigFile(configFile, explicit);

  const pick = (key: Key): Value => {
    const info = KEYS[key];
    const flag = sources.flags?.[flagNameOf(key)];
    if (flag !== undefined) return convert(info, flag, `--${flagNameOf(key)}`);
    const variable = env[envNameOf(key)];
    if (variable !== undefined) return convert(info, variable, envNameOf(key));
    if (file.values.has(key)) return convert(info, file.values.get(key), `${configFile}: ${key}`);
    return convert(info, info.default, `the default of ${key}`);
  };
  const values = new Map(KEY_NAMES.map((key) => [key, pick(key)]));
  const text = (key: Key) => values.get(key) as string;
  const number = (key: Key) => values.get(key) as number;
  const list = (key: Key) => values.get(key) as readonly string[];

  const dataDir = (values.get("data_dir") as string | undefined) ?? `/var/lib/${instance}`;
  const runDir = (values.get("run_dir") as string | undefined) ?? `/run/${instance}`;
  for (const [key, path] of [
    ["data_dir", dataDir],
    ["run_dir", runDir],
  ] as const) {
    if (!isAbsolute(path)) {
      throw new Fault("invalid_argument", `Cannot use ${path} as ${key}: it is not an absolute path`);
    }
  }
  const longestSocket = join(runDir, "containerd", "containerd.sock.ttrpc");
  if (Buffer.byteLength(longestSocket) > SOCKET_PATH_MAX) {
    throw new Fault(
      "invalid_argument",
      `Cannot use ${runDir} as run_dir: too long for a unix socket below it`,
      {
        hint: `Choose a run_dir of at most ${SOCKET_PATH_MAX - (longestSocket.length - runDir.length)} bytes`,
      },
    );
  }

  return Object.freeze<HostConfig>({
    instance,
    configFile,
    dataDir,
    runDir,
    socketPath: join(runDir, "memoh.sock"),
    pidFile: join(runDir, "host.pid"),
    log: Object.freeze({
      level: text("log.level") as HostConfig["log"]["level"],
      format: text("log.format") as HostConfig["log"]["format"],
    }),
    http: Object.freeze({
      addr: text("http.addr"),
      allowedHosts: list("http.allowed_hosts"),
      maxBody: number("http.max_body"),
      maxUpload: number("http.max_upload"),
    }),
    auth: Object.freeze({ jwtSecret: values.get("auth.jwt_secret") as Secret | undefined }),
    containerd: Object.freeze({
      socketPath: text("containerd.socket_path"),
      namespace: (values.get("containerd.namespace") as string | undefined) ?? instance,
      snapshotter: text("containerd.snapshotter"),
      runtimeBinary: text("containerd.runtime_binary"),
    }),
    database: Object.freeze({
      url: values.get("database.url") as Secret | undefined,
      migrate: values.get("database.migrate") as boolean,
    }),
    network: Object.freeze({
      bridge: (values.get("network.bridge") as string | undefined) ?? bridgeNameOf(instance),
      subnet: text("network.subnet"),
      pluginDir: text("network.plugin_dir"),
      nameservers: list("network.nameservers"),
      deny: list("network.deny"),
    }),
    image: Object.freeze({ default: text("image.default") }),
    limits: Object.freeze({
      memory: number("limits.memory"),
      pids: number("limits.pids"),
      cpus: number("limits.cpus"),
      diskReserve: number("limits.disk_reserve"),
    }),
    agent: Object.freeze({ extraCa: text("agent.extra_ca"), timezone: text("agent.timezone") }),
    registries: Object.freeze(file.registries),
  });
}

/** `memoh0`; interface names end at 15 bytes, so a long instance gets a hash. */
function bridgeNameOf(instance: string): string {
  if (instance.length <= 14) return `${instance}0`;
  return `${instance.slice(0, 7)}${createHash("sha256").update(instance).digest("hex").slice(0, 7)}0`;
}
