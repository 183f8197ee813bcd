// The table of contents of a tar file, made by seeking from header to header: nothing is extracted or read twice.
import type { FileHandle } from "node:fs/promises";
import { posix } from "node:path";
import { Fault } from "../lib/fault.ts";
import { throwIfAborted } from "../lib/signal.ts";

/** Where a member's bytes are, or which other member it stands for. */
export interface TarMember {
  readonly offset: number;
  readonly size: number;
  /** Name of the member a link points to. */
  readonly link: string | undefined;
}

const BLOCK = 512;
const MAX_MEMBERS = 100_000;
const MAX_EXTENSION = 1 << 20;

/**
 * Reads the headers of a tar (ustar, pax and GNU). Names come normalized, without a leading `./`.
 * @param what names the file in errors
 * @throws Fault invalid_argument when it is no tar, data_loss when it is damaged or cut off
 */
export async function indexTar(
  file: FileHandle,
  what: string,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, TarMember>> {
  const { size: fileSize } = await file.stat();
  const members = new Map<string, TarMember>();
  const damaged = (why: string) =>
    new Fault("data_loss", `Cannot read ${what}: ${why}`, { hint: "Copy or save the archive again" });
  let longName: string | undefined;
  let longLink: string | undefined;
  let pax: ReadonlyMap<string, string> = new Map();
  for (let at = 0; at + BLOCK <= fileSize; ) {
    throwIfAborted(signal);
    const header = await readAt(file, at, BLOCK);
    if (header === undefined) throw damaged("it changed while it was read");
    // Two empty blocks end a tar; what follows is padding.
    if (header.every((byte) => byte === 0)) break;
    if (!hasChecksum(header)) throw at === 0 ? notTar(header, what) : damaged(`it is damaged at byte ${at}`);
    const type = String.fromCharCode(header[156] ?? 0);
    const size = Number(pax.get("size") ?? numberIn(header, 124, 12));
    const offset = at + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0) throw damaged(`it is damaged at byte ${at}`);
    if (offset + size > fileSize) throw damaged("it is cut off");
    at = offset + Math.ceil(size / BLOCK) * BLOCK;
    if ("LKxg".includes(type)) {
      const extension = size > MAX_EXTENSION ? undefined : await readAt(file, offset, size);
      if (extension === undefined) throw damaged(`it is damaged at byte ${offset}`);
      if (type === "L") longName = textIn(extension, 0, size);
      if (type === "K") longLink = textIn(extension, 0, size);
      if (type === "x") pax = paxRecords(extension);
      continue;
    }
    const prefix = header.toString("latin1", 257, 262) === "ustar" ? textIn(header, 345, 155) : "";
    const short = [prefix, textIn(header, 0, 100)].filter((part) => part !== "").join("/");
    const name = normalized(pax.get("path") ?? longName ?? short);
    const target = pax.get("linkpath") ?? longLink ?? textIn(header, 157, 100);
    if (type === "0" || type === "\0" || type === "7") members.set(name, { offset, size, link: undefined });
    if (type === "1") members.set(name, { offset, size: 0, link: normalized(target) });
    if (type === "2") {
      members.set(name, { offset, size: 0, link: normalized(posix.join(posix.dirname(name), target)) });
    }
    if (members.size > MAX_MEMBERS) throw damaged(`it has more than ${MAX_MEMBERS} members`);
    longName = undefined;
    longLink = undefined;
    pax = new Map();
  }
  if (members.size === 0)
    throw notTar((await readAt(file, 0, Math.min(BLOCK, fileSize))) ?? Buffer.alloc(0), what);
  return members;
}

/** The bytes of a part of a file; undefined when it ends before. */
export async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer | undefined> {
  const buffer = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
    if (bytesRead === 0) return undefined;
    done += bytesRead;
  }
  return buffer;
}

function notTar(head: Buffer, what: string): Fault {
  const packed = PACKED.find(([magic]) => head.subarray(0, magic.length).equals(magic));
  return packed === undefined
    ? new Fault("invalid_argument", `Cannot read ${what}: it is no image archive`, {
        hint: "Give an archive made by docker save, skopeo, buildah or memoh image build",
      })
    : new Fault("invalid_argument", `Cannot read ${what}: the whole archive is compressed`, {
        hint: `Unpack it with ${packed[1]} first; only its layers may be compressed`,
      });
}

const PACKED: readonly (readonly [Buffer, string])[] = [
  [Buffer.from([0x1f, 0x8b]), "gunzip"],
  [Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), "unzstd"],
  [Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a]), "unxz"],
  [Buffer.from("BZh"), "bunzip2"],
];

/** The header's bytes add up, the checksum field itself counted as blanks. */
function hasChecksum(header: Buffer): boolean {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : (header[i] ?? 0);
  return sum === numberIn(header, 148, 8);
}

/** Octal text, or big-endian bytes after a set top bit for what octal cannot hold. */
function numberIn(header: Buffer, start: number, length: number): number {
  const first = header[start] ?? 0;
  if ((first & 0x80) === 0) {
    const text = header
      .toString("latin1", start, start + length)
      .replaceAll("\0", " ")
      .trim();
    return /^[0-7]*$/.test(text) ? Number.parseInt(text || "0", 8) : Number.NaN;
  }
  let value = BigInt(first & 0x7f);
  for (let i = start + 1; i < start + length; i++) value = (value << 8n) | BigInt(header[i] ?? 0);
  return Number(value);
}

function textIn(bytes: Buffer, start: number, length: number): string {
  const end = bytes.indexOf(0, start);
  return bytes.toString("utf8", start, end === -1 || end > start + length ? start + length : end);
}

/** Records are `LENGTH KEY=VALUE\n`, the length counting itself. */
function paxRecords(bytes: Buffer): ReadonlyMap<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString("latin1", at, space));
    if (space === -1 || !Number.isInteger(length) || length < 5 || at + length > bytes.length) break;
    const record = bytes.toString("utf8", space + 1, at + length - 1);
    const equals = record.indexOf("=");
    if (equals > 0) records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}

function normalized(name: string): string {
  return posix.normalize(`/${name}`).slice(1);
}
