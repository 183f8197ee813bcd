// Logging: one pino root per process, JSON or readable, on stderr, secrets redacted.
import { destination, type Logger, pino } from "pino";

export type { Logger } from "pino";

/** How much and in which form a process logs. */
export interface LogOptions {
  readonly level: "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
  /** `json` is one object per line; `text` is for eyes. */
  readonly format: "json" | "text";
  /** Where lines go; stderr when absent. */
  readonly write?: (line: string) => void;
}

/** Keys whose values never reach a log, at any depth pino's paths can name. */
const SECRET_KEYS = ["token", "password", "secret", "authorization", "cookie", "jwt", "key", "privateKey"];

const LEVELS: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "warn",
  50: "error",
  60: "fatal",
};

/** Makes the root logger. Rooms take a Logger and make `log.child({ room: "cni" })` once. */
export function createLogger(options: LogOptions): Logger {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const stream =
    options.format === "json" && options.write === undefined
      ? destination({ dest: 2, sync: true })
      : { write: options.format === "json" ? write : (line: string) => write(readable(line)) };
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      redact: {
        paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]),
        censor: "[redacted]",
      },
    },
    stream,
  );
}

/** A logger that drops everything, for tests and one-shot verbs. */
export function silentLogger(): Logger {
  return pino({ level: "silent" });
}

/** `12:34:56.789 info  message key=value` */
function readable(line: string): string {
  const record = JSON.parse(line) as Record<string, unknown>;
  const { level, time, msg, err, ...rest } = record;
  const clock = typeof time === "string" ? time.slice(11, 23) : "";
  const name = (LEVELS[Number(level)] ?? String(level)).padEnd(5);
  const fields = Object.entries(rest)
    .map(([key, value]) => ` ${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join("");
  const stack =
    typeof err === "object" && err !== null && "stack" in err && typeof err.stack === "string"
      ? `\n${err.stack}`
      : "";
  return `${clock} ${name} ${typeof msg === "string" ? msg : ""}${fields}${stack}\n`;
}
