// A FileEntry from what the kernel tells about a file.
import { isUtf8 } from "node:buffer";
import type { BigIntStats } from "node:fs";
import { goMode, goTime } from "../../core/go-format.ts";
import type { FileEntry } from "../../core/workspace.ts";
import { type BytePath, fsPath } from "./byte-path.ts";

/** Describes a file. `linkTarget` is given for symbolic links that were not followed. */
export function fileEntry(path: BytePath, stats: BigIntStats, linkTarget?: BytePath): FileEntry {
  const mode = Number(stats.mode);
  return {
    path: fsPath(path),
    isDir: stats.isDirectory(),
    size: Number(stats.size),
    mode: goMode(mode),
    perm: mode & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeNs: stats.mtimeNs,
    modTime: goTime(stats.mtimeNs),
    ...(linkTarget === undefined ? {} : { linkTarget: fsPath(linkTarget) }),
  };
}

/** Bytes the entry takes on the wire, at most: a name that is not UTF-8 is sent raw and with three bytes per U+FFFD. */
export function wireSize(entry: FileEntry): number {
  const name = isUtf8(entry.path) ? entry.path.length : entry.path.length * 4;
  return 100 + name + (entry.linkTarget?.length ?? 0);
}
