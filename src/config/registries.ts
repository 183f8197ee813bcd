// The `[registries."host"]` tables: mirrors, plain http and credentials per registry.
import { Fault } from "../lib/fault.ts";
import { Secret } from "./secret.ts";

export interface RegistryConfig {
  /** `docker.io`, `registry.example:5000` */
  readonly host: string;
  /** Base URLs asked in order before the registry itself. */
  readonly mirrors: readonly string[];
  /** Plain http. */
  readonly insecure: boolean;
  readonly username: string | undefined;
  readonly password: Secret | undefined;
}

const KNOWN = ["mirrors", "insecure", "username", "password"];

/** Checks the `registries` table of a config file. */
export function registriesFrom(table: unknown, file: string): readonly RegistryConfig[] {
  if (table === undefined) return [];
  const wrong = (what: string) =>
    new Fault("invalid_argument", `Cannot use the config file ${file}: ${what}`, {
      hint: 'Write [registries."host:port"] with mirrors, insecure, username and password',
    });
  if (!isTable(table)) throw wrong("registries is not a table");
  return Object.entries(table).map(([host, entry]) => {
    const at = `registries."${host}"`;
    if (!isTable(entry)) throw wrong(`${at} is not a table`);
    for (const key of Object.keys(entry)) {
      if (!KNOWN.includes(key)) throw wrong(`unknown key ${at}.${key}`);
    }
    const { mirrors = [], insecure = false, username, password } = entry;
    if (!Array.isArray(mirrors) || mirrors.some((mirror) => typeof mirror !== "string")) {
      throw wrong(`${at}.mirrors is not a list of URLs`);
    }
    if (typeof insecure !== "boolean") throw wrong(`${at}.insecure is not true or false`);
    if (username !== undefined && typeof username !== "string") throw wrong(`${at}.username is not a text`);
    if (password !== undefined && typeof password !== "string") throw wrong(`${at}.password is not a text`);
    return Object.freeze({
      host,
      mirrors: mirrors as string[],
      insecure,
      username,
      password: password === undefined ? undefined : new Secret(password),
    });
  });
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
