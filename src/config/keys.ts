// The one table of configuration keys: name, type, default, what it is. File, environment, flags and help all follow it.

/** What a value may be. `bytes` takes 512M or 2G, `duration` takes 30s or 5m. */
export type KeyType = "text" | "secret" | "flag" | "integer" | "number" | "bytes" | "list" | "choice";

export interface KeyInfo {
  readonly type: KeyType;
  readonly default: string | number | boolean | readonly string[] | undefined;
  readonly doc: string;
  readonly choices?: readonly string[];
}

/**
 * Every key of `/etc/<instance>/config.toml`, as `section.name`. The environment variable is MEMOH_ and the key in
 * capitals with `_` for `.`; the flag is `--` and the key with `-` for `.` and `_`.
 */
export const KEYS = {
  data_dir: {
    type: "text",
    default: undefined,
    doc: "Where everything durable lives (default /var/lib/<instance>)",
  },
  run_dir: { type: "text", default: undefined, doc: "Sockets and run files (default /run/<instance>)" },
  "log.level": {
    type: "choice",
    default: "info",
    choices: ["trace", "debug", "info", "warn", "error", "fatal", "silent"],
    doc: "How much is logged",
  },
  "log.format": {
    type: "choice",
    default: "text",
    choices: ["text", "json"],
    doc: "Form of the log on stderr",
  },
  "http.addr": {
    type: "text",
    default: "127.0.0.1:8080",
    doc: "Address of the HTTP API; empty serves the socket only",
  },
  "http.allowed_hosts": {
    type: "list",
    default: [],
    doc: "Host names accepted in requests besides the listen address and localhost",
  },
  "http.max_body": { type: "bytes", default: "1M", doc: "Largest JSON request body" },
  "http.max_upload": { type: "bytes", default: "64G", doc: "Largest streamed upload" },
  "auth.jwt_secret": {
    type: "secret",
    default: undefined,
    doc: "HS256 secret of accepted JWTs; none are accepted without",
  },
  "containerd.socket_path": {
    type: "text",
    default: "",
    doc: "Socket of a containerd that is already there; empty runs memoh's own",
  },
  "containerd.namespace": {
    type: "text",
    default: undefined,
    doc: "containerd namespace (default <instance>)",
  },
  "containerd.snapshotter": { type: "text", default: "overlayfs", doc: "containerd snapshotter" },
  "containerd.runtime_binary": { type: "text", default: "", doc: "OCI runtime instead of runc, as a path" },
  "database.url": {
    type: "secret",
    default: undefined,
    doc: "Postgres to use; without it memoh runs a private one",
  },
  "database.migrate": { type: "flag", default: true, doc: "Run pending migrations at start" },
  "network.bridge": { type: "text", default: undefined, doc: "Name of the bridge (default <instance>0)" },
  "network.subnet": { type: "text", default: "10.88.0.0/16", doc: "IPv4 subnet of the bots" },
  "network.plugin_dir": { type: "text", default: "", doc: "Directory of the CNI plugins; found when empty" },
  "network.nameservers": {
    type: "list",
    default: [],
    doc: "DNS servers of the bots; the host's own when empty",
  },
  "network.deny": { type: "list", default: [], doc: "Further IPv4 ranges no bot may reach, as CIDR" },
  "image.default": {
    type: "text",
    default: "localhost/memoh/bot:latest",
    doc: "Image of a bot that names none",
  },
  "limits.memory": { type: "bytes", default: "2G", doc: "Memory of a bot" },
  "limits.pids": { type: "integer", default: 2048, doc: "Processes and threads of a bot" },
  "limits.cpus": { type: "number", default: 0, doc: "Cores of a bot; 0 is all" },
  "limits.disk_reserve": { type: "bytes", default: "1G", doc: "Free space below which new work is refused" },
  "agent.extra_ca": {
    type: "text",
    default: "",
    doc: "CA bundle mounted into bots and set for Node, curl and Python",
  },
  "agent.timezone": { type: "text", default: "", doc: "Time zone of the bots; the host's when empty" },
} as const satisfies Record<string, KeyInfo>;

export type Key = keyof typeof KEYS;
export const KEY_NAMES = Object.keys(KEYS) as Key[];

/** MEMOH_HTTP_ADDR for `http.addr` */
export function envNameOf(key: string): string {
  return `MEMOH_${key.replaceAll(".", "_").toUpperCase()}`;
}

/** `http-addr` for `http.addr` */
export function flagNameOf(key: string): string {
  return key.replaceAll(/[._]/g, "-");
}
