// Template files for a new bot: each is given once, and one that the bot deletes stays deleted.
import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import type { Logger } from "../lib/log.ts";
import { throwIfAborted } from "../lib/signal.ts";
import type { LocalFiles } from "./files/local-files.ts";
import { lookUp } from "./files/look-up.ts";

/** Remembers, one name a line, which templates the bot has been given. */
const MARKER = ".memoh-seeded";

export interface SeedOptions {
  /** Directory of the templates; when there is none, there is nothing to do. */
  readonly templates: string;
  /** The bot's work directory, which exists. */
  readonly workDir: string;
  readonly files: LocalFiles;
  readonly log: Logger;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Copies each regular file of the template directory into the work directory, mode 0644, unless it was given before or
 * something has its name. Never throws for a file that fails: it is logged, and tried again at the next start.
 * @returns names that were written
 */
export async function seedTemplates(options: SeedOptions): Promise<readonly string[]> {
  const { templates, workDir, files, log, signal } = options;
  const written: string[] = [];
  try {
    const names = await templateNames(templates);
    const given = await givenBefore(join(workDir, MARKER));
    const before = given.size;
    for (const name of names) {
      throwIfAborted(signal);
      if (given.has(name)) continue;
      try {
        if ((await lookUp(Buffer.from(join(workDir, name)))) === undefined) {
          await files.writeFile(join(workDir, name), await readFile(join(templates, name)), { signal });
          written.push(name);
        }
        given.add(name);
      } catch (error) {
        log.warn(
          { err: faultFromErrno(error, `Cannot copy the template ${name}`), template: name },
          "template left out",
        );
      }
    }
    if (given.size > before) {
      const lines = [...given].map((name) => `${name}\n`).join("");
      await files.writeFile(join(workDir, MARKER), Buffer.from(lines), { signal });
    }
  } catch (error) {
    throwIfAborted(signal);
    log.warn({ err: faultFromErrno(error, `Cannot seed ${workDir}`) }, "templates left out");
  }
  return written;
}

async function templateNames(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

async function givenBefore(marker: string): Promise<Set<string>> {
  try {
    await using file = await open(marker);
    const lines = (await file.readFile("utf8")).split("\n");
    return new Set(lines.filter((line) => line !== ""));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Set();
    throw error;
  }
}
