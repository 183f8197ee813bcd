// Removes the temporary files that a crash left behind.
import type { Dirent } from "node:fs";
import { lstat, readdir, unlink } from "node:fs/promises";
import type { WorkspacePath } from "../../core/workspace.ts";
import { errnoOf } from "../../lib/errno.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import { type BytePath, bytePath, fsPath } from "./byte-path.ts";
import { isTempName } from "./temp-file.ts";

/** How far a sweep goes: far enough for nearly all, not through a tree of millions. */
const MAX_NAMES = 200_000;
/** The kernel stamps files with a clock that lags by a tick. */
const CLOCK_LAG_MS = 50;

export interface SweepOptions {
  /** Files changed at or after this time (milliseconds since 1970) stay: they are in use. Now, when absent. */
  readonly before?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Removes regular files below the directory that have exactly our kind of name and were last changed before this
 * process wrote any, so that it can run beside other work. Nearest directories come first, and it stops after 200,000
 * names: what lies deeper, or outside the directory, waits for a later sweep of it.
 * @returns how many were removed
 */
export async function sweepTemps(directory: WorkspacePath, options: SweepOptions = {}): Promise<number> {
  const before = (options.before ?? Date.now()) - CLOCK_LAG_MS;
  let removed = 0;
  let names = 0;
  const queue: BytePath[] = [bytePath(directory)];
  for (let at = queue.shift(); at !== undefined && names < MAX_NAMES; at = queue.shift()) {
    throwIfAborted(options.signal);
    for (const entry of await unlessErrno([], async () => await entriesOf(at))) {
      names++;
      const path = `${at}/${entry.name}`;
      if (entry.isDirectory()) queue.push(path);
      else if (entry.isFile() && isTempName(entry.name)) {
        removed += await unlessErrno(0, async () => await removeOld(path, before));
      }
    }
  }
  return removed;
}

async function removeOld(path: BytePath, before: number): Promise<number> {
  if ((await lstat(fsPath(path))).ctimeMs >= before) return 0;
  await unlink(fsPath(path));
  return 1;
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
