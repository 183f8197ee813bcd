// Lists a directory or a tree, whole up to 16 MiB or in pages.
import { readlink } from "node:fs/promises";
import type { FileEntry, Listing, ListOptions } from "../../core/workspace.ts";
import { errnoOf } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { type BytePath, fsPath, shown } from "./byte-path.ts";
import { Directory } from "./directory.ts";
import { fileEntry, wireSize } from "./file-entry.ts";
import { during } from "./file-fault.ts";
import { type EntryStep, walk } from "./walk.ts";

/** Bytes of an answer. */
const MAX_ANSWER = 16 << 20;

/**
 * Entries in byte order of their names, links not followed; of the whole tree when recursive, parents first. An entry
 * that goes while it is looked at is left out.
 * @throws Fault not_found, failed_precondition (not a directory), permission_denied, resource_exhausted, invalid_argument
 */
export async function list(path: BytePath, options: ListOptions): Promise<Listing> {
  const { recursive = false, offset = 0, limit = 0, maxEntries = 0, signal } = options;
  if (offset < 0 || limit < 0 || maxEntries < 0) {
    throw new Fault("invalid_argument", "offset, limit and max_entries must not be negative");
  }
  const entries: FileEntry[] = [];
  const unreadable: Buffer[] = [];
  const end = limit === 0 ? Number.MAX_SAFE_INTEGER : offset + limit;
  let total = 0;
  let size = 0;
  await during("readdir", path, async () => {
    const root = await Directory.open(path);
    for await (const step of walk(root, { enter: () => recursive, signal })) {
      if (step.kind === "unreadable") {
        // One that has gone since is no longer part of the tree.
        if (errnoOf(step.error) === "ENOENT") continue;
        unreadable.push(fsPath(step.path));
        size += step.path.length + 8;
      } else if (step.kind === "entry") {
        total++;
        if (maxEntries > 0 && total > maxEntries) throw tooMany(path, maxEntries);
        if (total <= offset || total > end) continue;
        const entry = await entryOf(step);
        if (entry === undefined) continue;
        size += wireSize(entry);
        if (size > MAX_ANSWER) throw tooLarge(path);
        entries.push(entry);
      }
    }
  });
  return { entries, totalCount: total, truncated: total > end, unreadable };
}

async function entryOf(step: EntryStep): Promise<FileEntry | undefined> {
  try {
    const stats = await step.stats();
    const link = stats.isSymbolicLink()
      ? await readlink(step.directory.in(step.name), { encoding: "latin1" })
      : undefined;
    return fileEntry(step.path, stats, link);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "EINVAL") return undefined;
    throw error;
  }
}

function tooMany(path: BytePath, maxEntries: number): Fault {
  return new Fault("resource_exhausted", `readdir: ${shown(path)}: more than ${maxEntries} entries`, {
    hint: "Ask for pages with offset and limit, or list a smaller directory",
  });
}

function tooLarge(path: BytePath): Fault {
  return new Fault(
    "resource_exhausted",
    `readdir: ${shown(path)}: the list is larger than 16 MiB; page it with offset and limit`,
    {
      hint: "Ask for pages with offset and limit",
    },
  );
}
