// Walks a directory tree depth first in byte order, parents before their children, of any width and depth.
import type { BigIntStats, Dirent } from "node:fs";
import { lstat } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import type { BytePath } from "./byte-path.ts";
import { Directory, DirectoryStack } from "./directory.ts";

/** Something met on a walk. */
export type WalkStep =
  | {
      readonly kind: "entry";
      readonly name: BytePath;
      /** Relative to the root of the walk. */
      readonly path: BytePath;
      readonly dirent: Dirent;
      /** The directory it is in; open until the next step, longer when retained. */
      readonly directory: Directory;
      /** lstat of it, with that of its next siblings under way; call it before the next step. Rejects with ENOENT when gone. */
      readonly stats: () => Promise<BigIntStats>;
    }
  /** All below a directory has been met; it is in `directory`. */
  | {
      readonly kind: "leave";
      readonly name: BytePath;
      readonly path: BytePath;
      readonly directory: Directory;
    }
  /** A directory that cannot be read; it was an entry before. */
  | { readonly kind: "unreadable"; readonly path: BytePath; readonly error: unknown };

export type EntryStep = WalkStep & { readonly kind: "entry" };

export interface WalkOptions {
  /** Whether to go into a directory, asked after its step; always when absent. */
  readonly enter?: (step: EntryStep) => boolean | Promise<boolean>;
  readonly signal?: AbortSignal | undefined;
}

/** Failures that are about one directory; others (no descriptors, no memory) end the walk. */
const UNREADABLE = new Set(["EACCES", "EPERM", "ENOENT", "ENOTDIR", "ELOOP", "EIO", "ESTALE"]);

/** How many siblings are looked at together. */
const STATS_AHEAD = 32;

/**
 * Walks what is below a root that is open; the root itself is no step. The walk closes the root.
 * @throws errno errors of reading the root itself
 */
export async function* walk(root: Directory, options: WalkOptions = {}): AsyncGenerator<WalkStep> {
  await using stack = new DirectoryStack(root);
  const levels = [new Siblings(root, "", await root.entries())];
  for (;;) {
    throwIfAborted(options.signal);
    const level = levels.at(-1);
    if (level === undefined) return;
    const dirent = level.next();
    if (dirent === undefined) {
      levels.pop();
      if (levels.length === 0) return;
      await stack.pop();
      const above = levels.at(-1);
      if (above !== undefined) above.directory = stack.current;
      yield { kind: "leave", name: level.name, path: level.path, directory: stack.current };
      continue;
    }
    const path = level.path === "" ? dirent.name : `${level.path}/${dirent.name}`;
    const step = {
      kind: "entry",
      name: dirent.name,
      path,
      dirent,
      directory: stack.current,
      stats: level.statsOf(dirent),
    } as const;
    yield step;
    if (!dirent.isDirectory() || (await options.enter?.(step)) === false) continue;
    try {
      const directory = await stack.push(dirent.name);
      levels.push(new Siblings(directory, path, await directory.entries(), dirent.name));
    } catch (error) {
      if (stack.depth === levels.length) await stack.pop();
      if (!UNREADABLE.has(errnoOf(error) ?? "")) throw error;
      yield { kind: "unreadable", path, error };
    }
  }
}

/** The entries of one directory that are still to come. */
class Siblings {
  readonly path: BytePath;
  readonly name: BytePath;
  /** Another object for the same directory after a deep descent. */
  directory: Directory;
  readonly #entries: (Dirent | undefined)[];
  readonly #stats = new Map<number, Promise<BigIntStats>>();
  #at = 0;

  constructor(directory: Directory, path: BytePath, entries: Dirent[], name: BytePath = "") {
    this.directory = directory;
    this.path = path;
    this.name = name;
    this.#entries = entries;
  }

  next(): Dirent | undefined {
    this.#stats.delete(this.#at - 1);
    const dirent = this.#entries[this.#at];
    this.#entries[this.#at] = undefined;
    this.#at++;
    return dirent;
  }

  statsOf(dirent: Dirent): () => Promise<BigIntStats> {
    const at = this.#at - 1;
    return async () => {
      let stats = this.#stats.get(at);
      if (stats === undefined) {
        stats = this.#look(dirent.name);
        this.#stats.set(at, stats);
        for (let i = at + 1; i < at + STATS_AHEAD; i++) {
          const sibling = this.#entries[i];
          if (sibling === undefined) break;
          this.#stats.set(i, this.#look(sibling.name));
        }
      }
      return await stats;
    };
  }

  #look(name: BytePath): Promise<BigIntStats> {
    const stats = this.directory.use(async (directory) => await lstat(directory.in(name), { bigint: true }));
    // Whoever asks for this one sees its failure.
    stats.catch(() => undefined);
    return stats;
  }
}
