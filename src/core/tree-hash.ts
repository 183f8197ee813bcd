// The hash of a file tree: one SHA-256 over every entry in stream order, the same for who reads a tree and who writes it.
//
// Each entry adds, integers big-endian, "bytes" being a u32 length and that many bytes:
//
//   u8     type: "f" file, "d" directory, "l" symbolic link, "h" hard link
//   bytes  path relative to the root, without "./" and trailing "/"; "." for the root itself
//   u32    mode & 07777
//   u32    uid
//   u32    gid
//   i64    modification time, microseconds since 1970, rounded down
//   bytes  target of a link (hard links: path of the first name), else empty
//   u64    bytes of content; 0 for all but files
//   32     SHA-256 of the content; zeros for all but files
//   u32    number of extended attributes, then of each, in byte order of names: bytes name, bytes value
//
// What was left out (sockets, devices, what could not be read) is no part of it.
import { createHash } from "node:crypto";

/** What an entry of a tree is. */
export type TreeEntryType = "file" | "directory" | "symlink" | "link";

/** An entry of a tree without its content. Paths, link targets and names of attributes have one character per byte. */
export interface TreeEntry {
  readonly type: TreeEntryType;
  /** Relative to the root of the tree; `.` is the root itself. */
  readonly path: string;
  /** st_mode & 0o7777 */
  readonly perm: number;
  readonly uid: number;
  readonly gid: number;
  /** Microseconds since 1970. */
  readonly mtimeUs: bigint;
  /** Target of a symbolic link; first name of a hard link, relative to the root; else empty. */
  readonly link: string;
  /** Bytes of content; 0 for all but files. */
  readonly size: number;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

const TYPES: Readonly<Record<TreeEntryType, string>> = { file: "f", directory: "d", symlink: "l", link: "h" };
const NO_CONTENT = Buffer.alloc(32);

/** Gathers the hash, the number of entries and the bytes of a tree. */
export class TreeHash {
  readonly #hash = createHash("sha256");
  #entries = 0;
  #bytes = 0;

  get entries(): number {
    return this.#entries;
  }

  /** Bytes of content of all files. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds the next entry. @param contentSha256 of a file's content */
  add(entry: TreeEntry, contentSha256: Uint8Array = NO_CONTENT): void {
    const fixed = Buffer.alloc(20);
    fixed.writeUInt32BE(entry.perm >>> 0, 0);
    fixed.writeUInt32BE(entry.uid >>> 0, 4);
    fixed.writeUInt32BE(entry.gid >>> 0, 8);
    fixed.writeBigInt64BE(BigInt.asIntN(64, entry.mtimeUs), 12);
    const size = Buffer.alloc(8);
    size.writeBigUInt64BE(BigInt(entry.size));
    const parts = [
      Buffer.from(TYPES[entry.type], "latin1"),
      ...counted(Buffer.from(entry.path, "latin1")),
      fixed,
      ...counted(Buffer.from(entry.link, "latin1")),
      size,
      contentSha256,
      u32(entry.xattrs.size),
    ];
    const names = [...entry.xattrs.keys()].sort();
    for (const name of names) {
      parts.push(...counted(Buffer.from(name, "latin1")), ...counted(entry.xattrs.get(name) ?? NO_CONTENT));
    }
    this.#hash.update(Buffer.concat(parts));
    this.#entries++;
    this.#bytes += entry.size;
  }

  /** The hash; nothing can be added afterwards. */
  digest(): Buffer {
    return this.#hash.digest();
  }
}

function counted(bytes: Uint8Array): Uint8Array[] {
  return [u32(bytes.length), bytes];
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
