// Checks what an agent answered. A bot can replace its agent, so nothing it says is taken on trust (CONTRACTS 3).
import type {
  FileEntry,
  Health,
  Hello,
  Listing,
  TextPage,
  TreeSkip,
  TreeSummary,
} from "../core/workspace.ts";
import type {
  HealthResponse,
  HelloResponse,
  ListDirResponse,
  ReadFileResponse,
  FileEntry as WireEntry,
  TreeSummary as WireSummary,
} from "../gen/proto/mcpcontainer/container_pb.ts";
import { garbage, safeText } from "./agent-fault.ts";

/** PATH_MAX of Linux. */
const MAX_PATH = 4096;
/** NAME_MAX of every file system in use. */
const MAX_NAME = 255;
/** A page is at most 5 KiB of formatted text; this leaves room for replacement characters. */
const MAX_PAGE = 64 << 10;
const MAX_CAPABILITIES = 100;
/** Go's mode string: type and flag letters, then nine permissions. */
const MODE = /^[A-Za-z?-]{1,12}[r-][w-][x-][r-][w-][x-][r-][w-][x-]$/;
const RFC3339 = /^\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/;

/** How the entry's path is to be read. */
export type PathKind = "name" | "relative";

export function checkHello(answer: HelloResponse, botId: string): Hello {
  if (answer.capabilities.length > MAX_CAPABILITIES) throw garbage(botId, "too many capabilities");
  const short = (text: string) => safeText(text, 128);
  return {
    botId: short(answer.botId),
    bootId: short(answer.bootId),
    version: short(answer.version),
    commit: short(answer.commit),
    runtime: short(answer.runtime),
    capabilities: answer.capabilities.map(short),
  };
}

export function checkHealth(answer: HealthResponse, botId: string): Health {
  return {
    uptimeMs: count(answer.uptimeMs, botId, "uptime"),
    rssBytes: count(answer.rssBytes, botId, "memory"),
    processes: count(answer.processes, botId, "process count"),
  };
}

export function checkPage(answer: ReadFileResponse, botId: string): TextPage {
  if (answer.content.length > MAX_PAGE) throw garbage(botId, "a page of text that is too long");
  return {
    content: answer.content,
    totalLines: count(answer.totalLines, botId, "line count"),
    binary: answer.binary,
    truncated: answer.truncated,
    nextLine: count(answer.nextLine, botId, "line number"),
    lossy: answer.lossy,
  };
}

/** @param limit the page asked for; 0 is none */
export function checkListing(
  answer: ListDirResponse,
  botId: string,
  options: { readonly recursive: boolean; readonly limit: number },
): Listing {
  if (options.limit > 0 && answer.entries.length > options.limit) {
    throw garbage(botId, `${answer.entries.length} entries where at most ${options.limit} were asked for`);
  }
  const kind = options.recursive ? "relative" : "name";
  return {
    entries: answer.entries.map((entry) => checkEntry(entry, botId, kind)),
    totalCount: count(answer.totalCount, botId, "entry count"),
    truncated: answer.truncated,
    unreadable: answer.unreadable.map((path) => checkMember(path, botId)),
  };
}

export function checkEntry(entry: WireEntry, botId: string, kind: PathKind | "any"): FileEntry {
  const raw = entry.pathRaw.length > 0 ? asBuffer(entry.pathRaw) : Buffer.from(entry.path);
  const path = kind === "any" ? checkAny(raw, botId) : checkPath(raw, botId, kind);
  if (!MODE.test(entry.mode)) throw garbage(botId, `mode ${JSON.stringify(safeText(entry.mode, 40))}`);
  if (!RFC3339.test(entry.modTime)) {
    throw garbage(botId, `time ${JSON.stringify(safeText(entry.modTime, 40))}`);
  }
  if (entry.linkTarget.length > MAX_PATH || entry.linkTarget.includes(0)) {
    throw garbage(botId, "a link target that is no path");
  }
  return {
    path,
    isDir: entry.isDir,
    size: count(entry.size, botId, "file size"),
    mode: entry.mode,
    perm: entry.perm & 0o7777,
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: entry.modTimeNs,
    modTime: entry.modTime,
    ...(entry.linkTarget.length > 0 ? { linkTarget: asBuffer(entry.linkTarget) } : {}),
  };
}

export function checkSummary(summary: WireSummary, botId: string): TreeSummary {
  if (summary.sha256.length !== 32) throw garbage(botId, "a hash that is no SHA-256");
  return {
    entries: count(summary.entries, botId, "entry count"),
    bytes: count(summary.bytes, botId, "byte count"),
    sha256: asBuffer(summary.sha256),
    skipped: summary.skipped.map(
      (skip): TreeSkip => ({
        path: checkMember(skip.pathRaw, botId),
        reason: safeText(skip.reason, 200),
        failed: skip.failed,
      }),
    ),
    xattrsUnsupported: summary.xattrsUnsupported,
  };
}

/** A path in a tree that is only reported: `.` is the root itself. */
export function checkMember(path: Uint8Array, botId: string): Buffer {
  const bytes = asBuffer(path);
  return bytes.length === 1 && bytes[0] === 0x2e ? bytes : checkPath(bytes, botId, "relative");
}

/**
 * A path that stays below where it is put: a single name, or names joined by single slashes, none of them empty, `.` or
 * `..`. @throws Fault data_loss
 */
export function checkPath(path: Buffer, botId: string, kind: PathKind): Buffer {
  checkAny(path, botId);
  let start = 0;
  for (let end = 0; end <= path.length; end++) {
    if (end < path.length && path[end] !== 0x2f) continue;
    if (kind === "name" && end < path.length) throw hostile(path, botId);
    checkComponent(path, start, end, botId);
    start = end + 1;
  }
  return path;
}

function checkComponent(path: Buffer, start: number, end: number, botId: string): void {
  const length = end - start;
  const dot = path[start] === 0x2e && (length === 1 || (length === 2 && path[start + 1] === 0x2e));
  if (length === 0 || length > MAX_NAME || dot) throw hostile(path, botId);
}

/** Any path at all: what `stat` says of `/` has no name. */
function checkAny(path: Buffer, botId: string): Buffer {
  if (path.length === 0 || path.length > MAX_PATH || path.includes(0)) throw hostile(path, botId);
  return path;
}

function hostile(path: Buffer, botId: string): Error {
  return garbage(
    botId,
    `a file name ${JSON.stringify(safeText(path.subarray(0, 200).toString("utf8"), 200))}`,
  );
}

/** A count is never negative and never more than a number can say. */
export function count(value: bigint | number, botId: string, what: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0) throw garbage(botId, `${what} ${value}`);
  return number;
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
