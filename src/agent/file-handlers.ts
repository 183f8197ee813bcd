// The file rpcs of ContainerService: wire messages in, calls on LocalFiles, wire messages out.
import { isUtf8 } from "node:buffer";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FileEntry, WorkspacePath } from "../core/workspace.ts";
import type {
  ContainerService,
  FileEntrySchema,
  WriteRawChunk,
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
  | "writeRaw";

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
      if (path.length === 0) throw new Fault("invalid_argument", "first chunk must include path");
      const written = await files.writeRaw(path, rawData(first.value, chunks), { signal });
      return { bytesWritten: BigInt(written) };
    },
  };
}

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
