// Mode, owner, times and extended attributes of written entries.
import type { FileHandle } from "node:fs/promises";
import { lchown, lutimes } from "node:fs/promises";
import type { TreeEntry } from "../../core/tree-hash.ts";
import { errnoOf } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import type { Xattrs } from "../../lib/xattr.ts";
import { type BytePath, shown } from "../files/byte-path.ts";
import type { Skips } from "./skips.ts";

/**
 * Whose files a tree becomes: `exact` restores owners, all mode bits and every attribute; `own` leaves them to this
 * user and drops set-id bits and attributes other than `user.*`, for trees that come from somebody less trusted.
 */
export type Ownership = "exact" | "own";

/** Restores what entries say about themselves; what is refused is told. */
export class Attributes {
  readonly #ownership: Ownership;
  readonly #xattrs: Xattrs | undefined;
  readonly #skips: Skips;

  constructor(ownership: Ownership, xattrs: Xattrs | undefined, skips: Skips) {
    this.#ownership = ownership;
    this.#xattrs = xattrs;
    this.#skips = skips;
  }

  /** Of an open file or directory whose content is complete. */
  async restore(handle: FileHandle, entry: TreeEntry): Promise<void> {
    const exact = this.#ownership === "exact";
    // In this order: a change of owner clears set-id bits and capabilities, everything else changes times.
    if (exact) await handle.chown(entry.uid, entry.gid);
    const kept = entry.type === "directory" ? 0o1777 : 0o777;
    await handle.chmod(exact ? entry.perm : entry.perm & kept);
    for (const [name, value] of entry.xattrs) {
      if (exact || name.startsWith("user.")) await this.#setXattr(handle, entry.path, name, value);
    }
    const seconds = secondsOf(entry.mtimeUs);
    await handle.utimes(seconds, seconds);
  }

  /** Of a symbolic link. */
  async restoreLink(path: Buffer, entry: TreeEntry): Promise<void> {
    if (this.#ownership === "exact") await lchown(path, entry.uid, entry.gid);
    const seconds = secondsOf(entry.mtimeUs);
    await lutimes(path, seconds, seconds);
  }

  async #setXattr(handle: FileHandle, path: BytePath, name: string, value: Uint8Array): Promise<void> {
    if (this.#xattrs === undefined) return;
    try {
      await this.#xattrs.write(handle.fd, name, value);
    } catch (error) {
      if (!(error instanceof Fault) && errnoOf(error) === undefined) throw error;
      this.#skips.add(path, `the extended attribute ${shown(name.slice(0, 100))} is refused here`, false);
    }
  }
}

/**
 * Seconds for utimes. A double this large is exact to a quarter of a microsecond, so a fifth is added: what is read
 * back and rounded down is the same microsecond again.
 */
function secondsOf(us: bigint): number {
  const floor = us >= 0n ? us / 1_000_000n : -((-us + 999_999n) / 1_000_000n);
  return Number(floor) + (Number(us - floor * 1_000_000n) + 0.2) / 1_000_000;
}
