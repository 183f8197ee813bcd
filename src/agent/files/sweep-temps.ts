// Removes the temporary files that a crash left behind.
import type { Dirent } from "node:fs";
import { readdir, unlink } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import { bytePath, type BytePath, fsPath } from "./byte-path.ts";
import { isTempName } from "./temp-file.ts";

/** How far a sweep goes, so that a start never waits long for a large tree: about a quarter of a second. */
const MAX_NAMES = 200_000;

/**
 * Removes regular files below the directory that have exactly our kind of name. Nearest directories come first, and it
 * stops after 200,000 names: what lies deeper, or outside the directory, waits for a later sweep of it. Run it before
 * anything is written: it cannot tell a temporary file in use from one left behind.
 * @returns how many were removed
 */
export async function sweepTemps(directory: string | Uint8Array, signal?: AbortSignal): Promise<number> {
  let removed = 0;
  let names = 0;
  const queue: BytePath[] = [bytePath(directory)];
  for (let at = queue.shift(); at !== undefined && names < MAX_NAMES; at = queue.shift()) {
    throwIfAborted(signal);
    for (const entry of await unlessErrno([], async () => await entriesOf(at))) {
      names++;
      const path = `${at}/${entry.name}`;
      if (entry.isDirectory()) queue.push(path);
      else if (entry.isFile() && isTempName(entry.name)) {
        removed += await unlessErrno(0, async () => await unlink(fsPath(path)).then(() => 1));
      }
    }
  }
  return removed;
}

async function entriesOf(directory: BytePath): Promise<Dirent[]> {
  return await readdir(fsPath(directory), { withFileTypes: true, encoding: "latin1" });
}

/** What is gone, unreadable or too deep is left alone: a sweep takes what it can reach. */
async function unlessErrno<T>(instead: T, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return instead;
  }
}
