// The bytes of a tar: headers, numbers and pax records, with names and values of any bytes.
//
// Written and read here instead of by a library because names have to survive as bytes: pax records are bytes, not
// text, and `hdrcharset=BINARY` says so to other programs. Strings have one character per byte (latin1) throughout.
import { isUtf8 } from "node:buffer";
import { Fault } from "../../lib/fault.ts";

/** Size of a header, and the multiple that content is padded to. */
export const BLOCK = 512;

/** The fields of a header that matter. */
export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
  /** `0` file, `1` hard link, `2` symbolic link, `5` directory, `x` pax records for the next header… */
  readonly type: string;
  readonly link: string;
}

/** Keyed values of a pax header. */
export type PaxRecords = ReadonlyMap<string, string>;

/** Bytes of padding after so many bytes of content. */
export function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/**
 * A ustar header. What does not fit its field is cut or set to 0 there: a pax record says it in full.
 */
export function encodeHeader(header: TarHeader): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(header.name.slice(0, 100), 0, "latin1");
  octal(block, header.mode, 100, 8);
  octal(block, header.uid, 108, 8);
  octal(block, header.gid, 116, 8);
  octal(block, header.size, 124, 12);
  octal(block, header.mtime, 136, 12);
  block.fill(" ", 148, 156);
  block.write(header.type, 156, "latin1");
  block.write(header.link.slice(0, 100), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  block.write(`${checksum(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Whether the number can be written in an octal field of that many characters. */
export function fitsOctal(value: number, width: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < 8 ** (width - 1);
}

function octal(block: Buffer, value: number, at: number, width: number): void {
  const fitting = fitsOctal(value, width) ? value : 0;
  block.write(`${fitting.toString(8).padStart(width - 1, "0")}\0`, at, "latin1");
}

/** pax records: `LENGTH KEY=VALUE\n` each, the length counting itself. */
export function encodePax(records: PaxRecords): Buffer {
  let text = "";
  for (const [key, value] of records) {
    const rest = ` ${key}=${value}\n`;
    let length = rest.length + 1;
    while (String(length).length + rest.length !== length) length++;
    text += length + rest;
  }
  return Buffer.from(text, "latin1");
}

/** Whether the one-character-per-byte string holds UTF-8. */
export function holdsUtf8(text: string): boolean {
  return isUtf8(Buffer.from(text, "latin1"));
}

/**
 * Reads a header.
 * @returns undefined for a block of zeros, which ends a tar
 * @throws Fault invalid_argument when it is no header
 */
export function decodeHeader(block: Buffer): TarHeader | undefined {
  const sum = checksum(block);
  if (sum === 8 * 32 && block.every((byte) => byte === 0)) return undefined;
  if (number(block, 148, 8) !== sum) throw notTar("a header's checksum is wrong");
  const ustar = block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = ustar ? text(block, 345, 155) : "";
  const name = text(block, 0, 100);
  const flag = String.fromCharCode(block[156] ?? 0);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8),
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    size: number(block, 124, 12),
    mtime: number(block, 136, 12),
    type: flag === "\0" || flag === "7" ? "0" : flag,
    link: text(block, 157, 100),
  };
}

/** @throws Fault invalid_argument when the records are malformed */
export function decodePax(bytes: Buffer): PaxRecords {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at);
    const digits = space === -1 ? "" : bytes.toString("latin1", at, space);
    const end = at + (/^[0-9]{1,9}$/.test(digits) ? Number(digits) : 0);
    const equals = bytes.indexOf(0x3d, space);
    if (end <= space + 1 || end > bytes.length || bytes[end - 1] !== 0x0a || equals === -1 || equals >= end) {
      throw notTar("a pax header is malformed");
    }
    records.set(bytes.toString("latin1", space + 1, equals), bytes.toString("latin1", equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** A Fault for bytes that are no tar we can read. */
export function notTar(reason: string): Fault {
  return new Fault("invalid_argument", `tree: not a readable tar: ${reason}`, {
    hint: "Send a tar in the pax, ustar or GNU format",
  });
}

function checksum(block: Buffer): number {
  let sum = 8 * 32;
  for (let i = 0; i < BLOCK; i++) {
    if (i < 148 || i >= 156) sum += block[i] ?? 0;
  }
  return sum;
}

function text(block: Buffer, at: number, width: number): string {
  const end = block.indexOf(0, at);
  return block.toString("latin1", at, end === -1 || end > at + width ? at + width : end);
}

/** Octal digits, or GNU's base 256 when the first bit is set. */
function number(block: Buffer, at: number, width: number): number {
  const first = block[at] ?? 0;
  if ((first & 0x80) === 0) {
    const digits = /^ *([0-7]*)/.exec(block.toString("latin1", at, at + width))?.[1] ?? "";
    return digits === "" ? 0 : Number.parseInt(digits, 8);
  }
  let value = (first & 0x40) === 0 ? first & 0x3f : (first & 0x3f) - 0x40;
  for (let i = at + 1; i < at + width; i++) value = value * 256 + (block[i] ?? 0);
  return value;
}
