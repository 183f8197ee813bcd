// An entry of a tree from what the kernel tells about a file.
import type { BigIntStats } from "node:fs";
import type { TreeEntry, TreeEntryType } from "../../core/tree-hash.ts";
import type { XattrMap } from "../../lib/xattr.ts";
import type { BytePath } from "../files/byte-path.ts";

export const NO_XATTRS: XattrMap = new Map();

/** Times are rounded down to the microsecond. */
export function entryOf(
  type: TreeEntryType,
  path: BytePath,
  stats: BigIntStats,
  more: { readonly link?: BytePath; readonly size?: number; readonly xattrs?: XattrMap },
): TreeEntry {
  const us = stats.mtimeNs / 1000n;
  return {
    type,
    path,
    perm: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeUs: us * 1000n > stats.mtimeNs ? us - 1n : us,
    link: more.link ?? "",
    size: more.size ?? 0,
    xattrs: more.xattrs ?? NO_XATTRS,
  };
}
