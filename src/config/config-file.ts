// The TOML file: parsed, every key known, flattened to `section.name`.
import { readFile } from "node:fs/promises";
import { parse } from "smol-toml";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { nearest } from "../lib/nearest.ts";
import { KEY_NAMES, KEYS } from "./keys.ts";
import { type RegistryConfig, registriesFrom } from "./registries.ts";

export interface FileContent {
  readonly values: ReadonlyMap<string, unknown>;
  readonly registries: readonly RegistryConfig[];
}

/**
 * Reads a config file. A missing one is empty unless it was asked for by name.
 * @throws Fault invalid_argument naming the file and the key
 */
export async function readConfigFile(path: string, required: boolean): Promise<FileContent> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" && !required) return { values: new Map(), registries: [] };
    throw faultFromErrno(error, `Cannot read the config file ${path}`);
  }
  let document: Record<string, unknown>;
  try {
    document = parse(text);
  } catch (error) {
    throw new Fault(
      "invalid_argument",
      `Cannot parse the config file ${path}: ${Fault.from(error).message}`,
      {
        cause: error,
        hint: "The file is TOML; strings need quotes",
      },
    );
  }
  const { registries, ...rest } = document;
  const values = new Map<string, unknown>();
  flatten(rest, "", values);
  for (const key of values.keys()) {
    if (key in KEYS) continue;
    const guess = nearest(key, KEY_NAMES);
    throw new Fault("invalid_argument", `Cannot use the config file ${path}: unknown key ${key}`, {
      hint: guess === undefined ? "See memoh host --help for every key" : `Did you mean ${guess}?`,
    });
  }
  return { values, registries: registriesFrom(registries, path) };
}

function flatten(table: Record<string, unknown>, prefix: string, into: Map<string, unknown>): void {
  for (const [name, value] of Object.entries(table)) {
    if (typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)) {
      flatten(value as Record<string, unknown>, `${prefix}${name}.`, into);
    } else {
      into.set(`${prefix}${name}`, value);
    }
  }
}
