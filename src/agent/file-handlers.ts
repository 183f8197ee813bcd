// The file rpcs of ContainerService: wire messages in, calls on LocalFiles, wire messages out.
import { isUtf8 } from "node:buffer";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FileEntry, TreeConflict, TreeSummary, WorkspacePath } from "../core/workspace.ts";
import {
  type ContainerService,
  type FileEntrySchema,
  type TreeSummarySchema,
  type TreeSummary as WireSummary,
  type WriteRawChunk,
  type WriteTreeChunk,
  WriteTreeChunk_Conflict,
} from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { Handlers } from "../rpc/server.ts";
import type { LocalFiles } from "./files/local-files.ts";

type FileRpc =
  | "readFile"
  | "writeFile"
  | "listDir"
  | "stat"
  | "mkdir"
  | "rename"
  | "deleteFile"
  | "readRaw"
  | "writeRaw"
  | "readTree"
  | "writeTree";

/** Handlers of the file rpcs, to be offered together with those of processes. */
export function fileHandlers(files: LocalFiles): Required<Pick<Handlers<typeof ContainerService>, FileRpc>> {
  return {
    readFile: async (request, { signal }) => {
      const range = { lineOffset: request.lineOffset, lines: request.nLines, signal };
      return await files.readText(pathOf(request.path, request.pathRaw), range);
    },

    writeFile: async (request, { signal }) => {
      await files.writeFile(pathOf(request.path, request.pathRaw), request.content, { signal });
      return {};
    },

    listDir: async (request, { signal }) => {
      const { recursive, offset, limit, maxEntries } = request;
      const options = { recursive, offset, limit, maxEntries, signal };
      const listing = await files.list(pathOf(request.path, request.pathRaw), options);
      return {
        entries: listing.entries.map(entryMessage),
        totalCount: Math.min(listing.totalCount, MAX_INT32),
        truncated: listing.truncated,
        unreadable: [...listing.unreadable],
      };
    },

    stat: async (request, { signal }) => {
      const options = { noFollow: request.noFollow, signal };
      return { entry: entryMessage(await files.stat(pathOf(request.path, request.pathRaw), options)) };
    },

    mkdir: async (request, { signal }) => {
      await files.mkdir(pathOf(request.path, request.pathRaw), { signal });
      return {};
    },

    rename: async (request, { signal }) => {
      const from = pathOf(request.oldPath, request.oldPathRaw);
      await files.rename(from, pathOf(request.newPath, request.newPathRaw), { signal });
      return {};
    },

    deleteFile: async (request, { signal }) => {
      const options = { recursive: request.recursive, signal };
      await files.remove(pathOf(request.path, request.pathRaw), options);
      return {};
    },

    readRaw: async function* (request, { signal }) {
      const range = { offset: Number(request.offset), length: Number(request.length), signal };
      const data = await files.readRaw(pathOf(request.path, request.pathRaw), range);
      for await (const chunk of data) yield { data: chunk };
    },

    writeRaw: async (requests, { signal }) => {
      const chunks = requests[Symbol.asyncIterator]();
      const first = await chunks.next();
      // No chunks at all make no file; the original says OK.
      if (first.done === true) return { bytesWritten: 0n };
      const path = pathOf(first.value.path, first.value.pathRaw);
      if (path.length === 0) throw firstChunkFault();
      const written = await files.writeRaw(path, rawData(first.value, chunks), { signal });
      return { bytesWritten: BigInt(written) };
    },

    readTree: async function* (request, { signal }) {
      const tree = await files.readTree(pathOf(request.path, request.pathRaw), { signal });
      for await (const data of tree.data) yield { data };
      yield { summary: summaryMessage(await tree.summary) };
    },

    writeTree: async (requests, { signal }) => {
      const chunks = requests[Symbol.asyncIterator]();
      const first = await chunks.next();
      const path = first.done === true ? "" : pathOf(first.value.path, first.value.pathRaw);
      if (first.done === true || path.length === 0) throw firstChunkFault();
      const conflict = CONFLICTS[first.value.conflict];
      if (conflict === undefined) {
        throw new Fault("invalid_argument", `tree: unknown conflict rule ${first.value.conflict}`);
      }
      const tree = treeData(first.value, chunks);
      const expected = () => Promise.resolve(tree.sent());
      const written = await files.writeTree(path, tree.data, { conflict, expected, signal });
      return { summary: summaryMessage(written.summary), conflicts: [...written.conflicts] };
    },
  };
}

const CONFLICTS: Readonly<Record<number, TreeConflict>> = {
  [WriteTreeChunk_Conflict.FAIL]: "fail",
  [WriteTreeChunk_Conflict.REPLACE]: "replace",
  [WriteTreeChunk_Conflict.KEEP]: "keep",
  [WriteTreeChunk_Conflict.RENAME]: "rename",
};

const MAX_INT32 = 2 ** 31 - 1;

/** Bytes win over text. */
function pathOf(path: string, raw: Uint8Array): WorkspacePath {
  return raw.length > 0 ? raw : path;
}

function entryMessage(entry: FileEntry): MessageInitShape<typeof FileEntrySchema> {
  return {
    path: entry.path.toString("utf8"),
    ...(isUtf8(entry.path) ? {} : { pathRaw: entry.path }),
    isDir: entry.isDir,
    size: BigInt(entry.size),
    mode: entry.mode,
    modTime: entry.modTime,
    perm: entry.perm,
    uid: entry.uid,
    gid: entry.gid,
    modTimeNs: entry.mtimeNs,
    ...(entry.linkTarget === undefined ? {} : { linkTarget: entry.linkTarget }),
  };
}

async function* rawData(
  first: WriteRawChunk,
  rest: AsyncIterator<WriteRawChunk>,
): AsyncGenerator<Uint8Array> {
  try {
    for (let chunk = first; ; ) {
      if (chunk.abort) throw new Fault("aborted", "write: the sender gave up; the old file stays");
      if (chunk.data.length > 0) yield chunk.data;
      const next = await rest.next();
      if (next.done === true) {
        if (!first.needsCommit || chunk.commit) return;
        throw new Fault("aborted", "write: the stream broke off; the old file stays");
      }
      chunk = next.value;
    }
  } finally {
    await rest.return?.();
  }
}

/** The bytes of a tree, and what their sender said of them once the bytes are at their end. */
function treeData(first: WriteTreeChunk, rest: AsyncIterator<WriteTreeChunk>) {
  let summary: TreeSummary | undefined;
  async function* data(): AsyncGenerator<Uint8Array> {
    try {
      for (let chunk = first; ; ) {
        if (chunk.summary !== undefined) summary = summaryOf(chunk.summary);
        if (chunk.data.length > 0) yield chunk.data;
        const next = await rest.next();
        if (next.done === true) return;
        chunk = next.value;
      }
    } finally {
      await rest.return?.();
    }
  }
  return { data: data(), sent: () => summary };
}

function summaryMessage(summary: TreeSummary): MessageInitShape<typeof TreeSummarySchema> {
  return {
    entries: BigInt(summary.entries),
    bytes: BigInt(summary.bytes),
    sha256: summary.sha256,
    skipped: summary.skipped.map(({ path, reason, failed }) => ({ pathRaw: path, reason, failed })),
    xattrsUnsupported: summary.xattrsUnsupported,
  };
}

function summaryOf(message: WireSummary): TreeSummary {
  return {
    entries: Number(message.entries),
    bytes: Number(message.bytes),
    sha256: Buffer.from(message.sha256),
    skipped: message.skipped.map(({ pathRaw, reason, failed }) => ({
      path: Buffer.from(pathRaw),
      reason,
      failed,
    })),
    xattrsUnsupported: message.xattrsUnsupported,
  };
}

function firstChunkFault(): Fault {
  return new Fault("invalid_argument", "first chunk must include path");
}
