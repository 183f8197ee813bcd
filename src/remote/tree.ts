// File trees of an agent as tar streams: read with a summary at the end, written with one to compare.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type {
  TreeConflict,
  TreeReader,
  TreeSummary,
  TreeWritten,
  Workspace,
  WorkspacePath,
} from "../core/workspace.ts";
import {
  type TreeChunk,
  TreeSummarySchema,
  type TreeSummary as WireSummary,
  WriteTreeChunk_Conflict,
  type WriteTreeChunkSchema,
  type WriteTreeResponse,
} from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { ServerStream } from "../rpc/client.ts";
import { garbage } from "./agent-fault.ts";
import { checkMember, checkSummary } from "./answers.ts";
import { ByteStream } from "./byte-stream.ts";
import type { Lease } from "./route.ts";
import type { Upload } from "./upload.ts";
import { recut, wirePath } from "./wire.ts";

type WriteTreeMessage = MessageInitShape<typeof WriteTreeChunkSchema>;

const CONFLICTS: Readonly<Record<TreeConflict, WriteTreeChunk_Conflict>> = {
  fail: WriteTreeChunk_Conflict.FAIL,
  replace: WriteTreeChunk_Conflict.REPLACE,
  keep: WriteTreeChunk_Conflict.KEEP,
  rename: WriteTreeChunk_Conflict.RENAME,
};

/** The data of an opened ReadTree, and its summary once the last message came. */
export function treeReader(stream: ServerStream<TreeChunk>, lease: Lease, botId: string): TreeReader {
  const told = Promise.withResolvers<TreeSummary>();
  // Whoever does not ask for the summary is not told of its failure: the data fails the same way.
  told.promise.catch(() => undefined);
  let summary: WireSummary | undefined;
  const data = new ByteStream({
    stream,
    lease,
    botId,
    take: (chunk) => {
      if (summary !== undefined) throw garbage(botId, "a tree that goes on after its summary");
      summary = chunk.summary;
      return chunk.data;
    },
    atEnd: () => {
      if (summary === undefined) throw garbage(botId, "a tree without a summary");
      told.resolve(checkSummary(summary, botId));
    },
    onBroken: (reason) => {
      told.reject(reason ?? new Fault("cancelled", "the tree was not read to its end"));
    },
  });
  return { data, summary: told.promise };
}

/** The messages of a WriteTree: where to, the data, and at last what it should have amounted to. */
export function treeUpload(
  path: WorkspacePath,
  data: AsyncIterable<Uint8Array>,
  options: NonNullable<Parameters<Workspace["writeTree"]>[2]>,
): Upload<WriteTreeMessage> {
  async function* rest(): AsyncGenerator<WriteTreeMessage, void> {
    for await (const piece of recut(data)) yield { data: piece };
    const expected = await options.expected?.();
    if (expected !== undefined) yield { summary: wireSummary(expected) };
  }
  return { first: { ...wirePath(path), conflict: CONFLICTS[options.conflict ?? "fail"] }, rest: rest() };
}

/** @throws Fault data_loss */
export function treeWritten(answer: WriteTreeResponse, botId: string): TreeWritten {
  if (answer.summary === undefined) throw garbage(botId, "no summary of the tree it wrote");
  return {
    summary: checkSummary(answer.summary, botId),
    conflicts: answer.conflicts.map((path) => checkMember(path, botId)),
  };
}

function wireSummary(summary: TreeSummary): WireSummary {
  return create(TreeSummarySchema, {
    entries: BigInt(summary.entries),
    bytes: BigInt(summary.bytes),
    sha256: summary.sha256,
    skipped: summary.skipped.map((skip) => ({
      pathRaw: skip.path,
      reason: skip.reason,
      failed: skip.failed,
    })),
    xattrsUnsupported: summary.xattrsUnsupported,
  });
}
