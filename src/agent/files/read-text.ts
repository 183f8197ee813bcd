// A page of numbered lines: the original's ReadFile, with lines of any length in bounded memory and nothing cut silently.
import type { TextPage } from "../../core/workspace.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import type { BytePath } from "./byte-path.ts";
import { during } from "./file-fault.ts";
import { openRegular } from "./open-regular.ts";

const MAX_LINES = 200;
/** Bytes of formatted output. */
const MAX_OUTPUT = 5120;
/** Code points of a line; `...` follows what is cut. */
const MAX_POINTS = 1000;
/** Bytes of a line worth keeping: 1001 code points are at most 4004 bytes. */
const KEEP = 4096;
const PROBE = 8192;
const BUFFER = 256 << 10;
const LF = 10;
const MAX_INT32 = 2 ** 31 - 1;

/** Which lines: the first one (1-based, less than 1 is 1) and how many (less than 1 or more than 200 is 200). */
export interface TextRange {
  readonly lineOffset?: number | undefined;
  readonly lines?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads lines as `%6d\ttext\n`. The output stops before the line that would take it over 5120 bytes; the whole file is
 * counted all the same. A NUL byte among the first 8192 makes the file binary.
 * @throws Fault not_found, permission_denied, failed_precondition (not a regular file)
 */
export async function readText(path: BytePath, range: TextRange): Promise<TextPage> {
  const { handle } = await openRegular(path);
  await using _ = handle;
  return await during("read", path, async () => {
    const buffer = Buffer.allocUnsafe(BUFFER);
    let filled = 0;
    let atEnd = false;
    const fill = async (upTo: number) => {
      while (filled < upTo && !atEnd) {
        throwIfAborted(range.signal);
        const { bytesRead } = await handle.read(buffer, filled, BUFFER - filled, null);
        filled += bytesRead;
        atEnd = bytesRead === 0;
      }
    };
    await fill(PROBE);
    if (buffer.subarray(0, Math.min(filled, PROBE)).includes(0)) return BINARY;
    const page = new PageBuilder(range);
    while (filled > 0) {
      page.add(buffer.subarray(0, filled));
      filled = 0;
      await fill(1);
    }
    return page.finish();
  });
}

const BINARY: TextPage = {
  content: "",
  totalLines: 0,
  binary: true,
  truncated: false,
  nextLine: 0,
  lossy: false,
};

/** Splits what it is fed into lines and keeps only what the page shows. */
class PageBuilder {
  readonly #first: number;
  readonly #lines: number;
  #content = "";
  #size = 0;
  #shown = 0;
  #full = false;
  #cut = false;
  #lossy = false;
  /** Complete lines seen. */
  #total = 0;
  /** The line under way: its first bytes, and how long it is so far. */
  #head: Buffer[] = [];
  #kept = 0;
  #length = 0;

  constructor(range: TextRange) {
    const { lineOffset = 1, lines = MAX_LINES } = range;
    this.#first = Math.max(1, lineOffset);
    this.#lines = lines < 1 || lines > MAX_LINES ? MAX_LINES : lines;
  }

  add(chunk: Buffer): void {
    let start = 0;
    if (this.#full) {
      // Nothing more is shown: the rest of the file is only counted.
      for (let i = 0; i < chunk.length; i++) if (chunk[i] === LF) this.#total++;
      this.#length = chunk.at(-1) === LF ? 0 : 1;
      return;
    }
    for (;;) {
      const end = chunk.indexOf(LF, start);
      if (end === -1) break;
      this.#extend(chunk.subarray(start, end));
      this.#endLine();
      start = end + 1;
    }
    this.#extend(chunk.subarray(start));
  }

  finish(): TextPage {
    if (this.#length > 0) this.#endLine();
    const next = this.#first + this.#shown;
    const more = this.#shown > 0 && next <= this.#total;
    return {
      content: this.#content,
      totalLines: Math.min(this.#total, MAX_INT32),
      binary: false,
      truncated: more || this.#cut,
      nextLine: more ? Math.min(next, MAX_INT32) : 0,
      lossy: this.#lossy,
    };
  }

  get #wanted(): boolean {
    return !this.#full && this.#total + 1 >= this.#first;
  }

  #extend(part: Buffer): void {
    this.#length += part.length;
    if (!this.#wanted || this.#kept >= KEEP || part.length === 0) return;
    // A copy: the caller's buffer is used again.
    const head = Buffer.from(part.subarray(0, KEEP - this.#kept));
    this.#head.push(head);
    this.#kept += head.length;
  }

  #endLine(): void {
    if (this.#wanted) this.#show();
    this.#total++;
    this.#head = [];
    this.#kept = 0;
    this.#length = 0;
  }

  #show(): void {
    let bytes = Buffer.concat(this.#head);
    if (this.#length === bytes.length && bytes.at(-1) === 13) bytes = bytes.subarray(0, -1);
    const { text, cut } = firstPoints(bytes.toString("utf8"));
    const line = `${String(this.#total + 1).padStart(6)}\t${text}${cut ? "..." : ""}\n`;
    const size = Buffer.byteLength(line);
    if (this.#size + size > MAX_OUTPUT) {
      this.#full = true;
      return;
    }
    this.#content += line;
    this.#size += size;
    this.#shown++;
    this.#cut ||= cut;
    this.#lossy ||= text.includes("\ufffd") && !isPrefix(text, bytes);
    this.#full = this.#shown === this.#lines;
  }
}

function firstPoints(text: string): { text: string; cut: boolean } {
  if (text.length <= MAX_POINTS) return { text, cut: false };
  let at = 0;
  for (let points = 0; points < MAX_POINTS && at < text.length; points++) {
    at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
  }
  return { text: text.slice(0, at), cut: at < text.length };
}

/** Whether the text is the exact beginning of the bytes, so that each U+FFFD in it was really in the file. */
function isPrefix(text: string, bytes: Buffer): boolean {
  const exact = Buffer.from(text, "utf8");
  return bytes.subarray(0, exact.length).equals(exact);
}
