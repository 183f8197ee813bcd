// Removes a file, an empty directory or a tree; what is not there is removed already.
import { rmdir, unlink } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";
import { type BytePath, fsPath } from "./byte-path.ts";
import { Directory } from "./directory.ts";
import { during, pathFault } from "./file-fault.ts";
import { lookUp } from "./look-up.ts";
import { walk } from "./walk.ts";

export interface RemoveOptions {
  readonly recursive?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Rounds over a tree that something else keeps filling. */
const ROUNDS = 4;
const TOGETHER = 32;

/**
 * Removes what the path names, never what a link leads to. Of a tree that cannot be removed entirely as much as
 * possible goes, then the first failure is thrown.
 * @throws Fault failed_precondition (not empty, mount point, `/`), permission_denied
 */
export async function remove(path: BytePath, options: RemoveOptions): Promise<void> {
  if (path === "/") throw pathFault("failed_precondition", "delete", path, "the root cannot be deleted");
  await during("delete", path, async () => {
    const stats = await lookUp(fsPath(path));
    if (stats === undefined) return;
    if (!stats.isDirectory()) {
      await unlessGone(unlink(fsPath(path)));
      return;
    }
    for (let round = 1; ; round++) {
      const failure = options.recursive === true ? await empty(path, options.signal) : undefined;
      try {
        await unlessGone(rmdir(fsPath(path)));
        return;
      } catch (error) {
        const filledAgain = options.recursive === true && errnoOf(error) === "ENOTEMPTY";
        if (failure === undefined && filledAgain && round < ROUNDS) continue;
        throw failure ?? error;
      }
    }
  });
}

/** Removes all below a directory. @returns the first failure */
async function empty(path: BytePath, signal: AbortSignal | undefined): Promise<unknown> {
  let failure: unknown;
  const running = new Set<Promise<void>>();
  const attempt = async (work: Promise<void>) => {
    try {
      await unlessGone(work);
    } catch (error) {
      // A directory that is not empty has its reason below, or was filled again.
      if (errnoOf(error) !== "ENOTEMPTY") failure ??= error;
    }
  };
  let root: Directory;
  try {
    root = await Directory.open(path);
  } catch (error) {
    // Unreadable or gone: removing the directory itself will tell.
    return errnoOf(error) === "ENOENT" ? undefined : error;
  }
  for await (const step of walk(root, { signal })) {
    if (step.kind === "entry" && !step.dirent.isDirectory()) {
      const { name } = step;
      const work = attempt(step.directory.use(async (directory) => await unlink(directory.in(name))));
      running.add(work);
      void work.then(() => running.delete(work));
      if (running.size >= TOGETHER) await Promise.race(running);
    } else if (step.kind === "leave") {
      await Promise.all(running);
      await attempt(rmdir(step.directory.in(step.name)));
    } else if (step.kind === "unreadable") {
      failure ??= errnoOf(step.error) === "ENOENT" ? undefined : step.error;
    }
  }
  await Promise.all(running);
  return failure;
}

async function unlessGone(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
