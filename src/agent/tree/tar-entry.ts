// Entries of a tree as tar headers and back: pax records carry what a ustar header cannot.
//
// Beyond POSIX: extended attributes are LIBARCHIVE.xattr.NAME (NAME percent-encoded, the value base64), as bsdtar
// writes them; SCHILY.xattr.NAME (raw), as GNU tar writes them, is read too.
import type { TreeEntry, TreeEntryType } from "../../core/tree-hash.ts";
import {
  encodeHeader,
  encodePax,
  fitsOctal,
  holdsUtf8,
  notTar,
  type PaxRecords,
  padding,
  type TarHeader,
} from "./tar-format.ts";

const TYPE_FLAGS: Readonly<Record<TreeEntryType, string>> = {
  file: "0",
  link: "1",
  symlink: "2",
  directory: "5",
};
const FLAG_TYPES: Readonly<Record<string, TreeEntryType>> = {
  0: "file",
  1: "link",
  2: "symlink",
  5: "directory",
};
const REFUSED: Readonly<Record<string, string>> = {
  3: "a device",
  4: "a device",
  6: "a FIFO",
  S: "a sparse file of GNU tar",
};
const XATTR = "LIBARCHIVE.xattr.";
const RAW_XATTR = "SCHILY.xattr.";
const MILLION = 1_000_000n;
const MAX_ID = 2 ** 32 - 1;

/** The header blocks of an entry; its content, padded, follows. */
export function encodeEntry(entry: TreeEntry): Buffer {
  const name = entry.type === "directory" ? `${entry.path}/` : entry.path;
  const seconds = entry.mtimeUs / MILLION;
  const header: TarHeader = {
    name,
    mode: entry.perm,
    uid: entry.uid,
    gid: entry.gid,
    size: entry.size,
    mtime: Number(seconds),
    type: TYPE_FLAGS[entry.type],
    link: entry.link,
  };
  const records = new Map<string, string>();
  if (!plain(name)) records.set("path", name);
  if (!plain(entry.link)) records.set("linkpath", entry.link);
  if (!fitsOctal(entry.size, 12)) records.set("size", String(entry.size));
  if (!fitsOctal(entry.uid, 8)) records.set("uid", String(entry.uid));
  if (!fitsOctal(entry.gid, 8)) records.set("gid", String(entry.gid));
  if (entry.mtimeUs % MILLION !== 0n || !fitsOctal(Number(seconds), 12))
    records.set("mtime", paxTime(entry.mtimeUs));
  for (const [key, value] of entry.xattrs) {
    records.set(XATTR + encodeName(key), Buffer.from(value).toString("base64"));
  }
  const block = encodeHeader(header);
  if (records.size === 0) return block;
  const charset: [string, string][] = [...records.values()].every(holdsUtf8)
    ? []
    : [["hdrcharset", "BINARY"]];
  const pax = encodePax(new Map([...charset, ...records]));
  const paxHeader = encodeHeader({ ...header, name: "PaxHeader", size: pax.length, type: "x", link: "" });
  return Buffer.concat([paxHeader, pax, Buffer.alloc(padding(pax.length)), block]);
}

/**
 * An entry from its header and the pax records before it. The path is as it came: nobody has checked where it leads.
 * @throws Fault invalid_argument for devices, FIFOs and what we do not know
 */
export function decodeEntry(header: TarHeader, pax: PaxRecords): TreeEntry {
  const path = given(pax, "path") ?? header.name;
  // Before there was a type for directories, they were files whose names end in "/".
  const type = FLAG_TYPES[header.type === "0" && path.endsWith("/") ? "5" : header.type];
  const sparse = [...pax.keys()].some((key) => key.startsWith("GNU.sparse."));
  if (type === undefined || sparse) {
    const kind = sparse
      ? "a sparse file of GNU tar"
      : (REFUSED[header.type] ?? `of unknown type "${header.type}"`);
    throw notTar(`${Buffer.from(path, "latin1").toString("utf8")} is ${kind}`);
  }
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of pax) {
    if (key.startsWith(XATTR)) xattrs.set(decodeName(key.slice(XATTR.length)), Buffer.from(value, "base64"));
    else if (key.startsWith(RAW_XATTR)) xattrs.set(key.slice(RAW_XATTR.length), Buffer.from(value, "latin1"));
  }
  const mtime = given(pax, "mtime");
  return {
    type,
    path,
    perm: header.mode & 0o7777,
    uid: integer(given(pax, "uid"), header.uid, MAX_ID),
    gid: integer(given(pax, "gid"), header.gid, MAX_ID),
    mtimeUs: mtime === undefined ? BigInt(Math.trunc(header.mtime)) * MILLION : parsePaxTime(mtime),
    link: type === "link" || type === "symlink" ? (given(pax, "linkpath") ?? header.link) : "",
    size: type === "file" ? integer(given(pax, "size"), header.size) : 0,
    xattrs,
  };
}

/** Bytes of content that follow the header, whatever its type makes of them. */
export function contentSize(header: TarHeader, pax: PaxRecords): number {
  // Links and directories have none, also where an old tar gives them the size of their target.
  return header.type === "1" || header.type === "2" || header.type === "5"
    ? 0
    : integer(given(pax, "size"), header.size);
}

/** Short ASCII fits the header of any format. */
function plain(name: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return name.length <= 100 && /^[\x01-\x7f]*$/.test(name);
}

/** A record without a value takes back a global one. */
function given(pax: PaxRecords, key: string): string | undefined {
  const value = pax.get(key);
  return value === "" ? undefined : value;
}

function integer(text: string | undefined, instead: number, max = Number.MAX_SAFE_INTEGER): number {
  const value = text === undefined ? instead : /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < 0 || value > max) throw notTar("a number is out of range");
  return value;
}

function paxTime(us: bigint): string {
  const size = us < 0n ? -us : us;
  return `${us < 0n ? "-" : ""}${size / MILLION}.${String(size % MILLION).padStart(6, "0")}`;
}

function parsePaxTime(text: string): bigint {
  const match = /^(-?)([0-9]{1,12})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) throw notTar("a time is malformed");
  const [, sign, seconds = "", fraction = ""] = match;
  const us = BigInt(seconds) * MILLION + BigInt(fraction.slice(0, 6).padEnd(6, "0"));
  if (sign === "") return us;
  // Rounded down, so away from zero here.
  return /[1-9]/.test(fraction.slice(6)) ? -us - 1n : -us;
}

function encodeName(name: string): string {
  return name.replaceAll(
    /[^A-Za-z0-9._-]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

function decodeName(name: string): string {
  return name.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
