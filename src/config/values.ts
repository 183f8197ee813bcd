// Values of keys from text, TOML or flags, checked against the key's type.
import { Fault } from "../lib/fault.ts";
import type { KeyInfo } from "./keys.ts";
import { Secret } from "./secret.ts";

export type Value = string | number | boolean | readonly string[] | Secret | undefined;

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes from `512M`, `2GiB`, `1048576`. Undefined when it is none. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const unit = UNITS[match?.[2]?.toUpperCase() ?? ""];
  if (match?.[1] === undefined || unit === undefined) return undefined;
  return Math.floor(Number(match[1]) * unit);
}

/**
 * A value of the key's type.
 * @param where names the source in the error: `MEMOH_LOG_LEVEL`, `--log-level`, `/etc/memoh/config.toml: log.level`
 */
export function convert(info: KeyInfo, raw: unknown, where: string): Value {
  if (raw === undefined) return undefined;
  const wrong = (expected: string): Fault =>
    new Fault("invalid_argument", `Cannot use the value of ${where}: expected ${expected}`, {
      hint: info.doc,
    });
  switch (info.type) {
    case "text":
      if (typeof raw !== "string") throw wrong("a text");
      return raw;
    case "secret":
      if (typeof raw !== "string") throw wrong("a text");
      return raw === "" ? undefined : new Secret(raw);
    case "choice":
      if (typeof raw !== "string" || info.choices?.includes(raw) !== true) {
        throw wrong(`one of ${info.choices?.join(", ") ?? ""}`);
      }
      return raw;
    case "flag":
      if (typeof raw === "boolean") return raw;
      if (raw === "true" || raw === "1") return true;
      if (raw === "false" || raw === "0") return false;
      throw wrong("true or false");
    case "integer":
    case "number": {
      const number = typeof raw === "string" && raw.trim() !== "" ? Number(raw) : raw;
      if (typeof number !== "number" || !Number.isFinite(number) || number < 0)
        throw wrong("a number, 0 or more");
      if (info.type === "integer" && !Number.isInteger(number)) throw wrong("a whole number");
      return number;
    }
    case "bytes": {
      const bytes = typeof raw === "number" ? raw : typeof raw === "string" ? parseBytes(raw) : undefined;
      if (bytes === undefined || !Number.isSafeInteger(bytes) || bytes < 0)
        throw wrong("a size such as 512M or 2G");
      return bytes;
    }
    case "list": {
      const items: unknown = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
      if (!Array.isArray(items) || items.some((item) => typeof item !== "string"))
        throw wrong("a list of texts");
      return Object.freeze((items as string[]).filter((item) => item !== ""));
    }
  }
}
