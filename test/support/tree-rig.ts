// Trees and tars for tests: what a tree looks like, tars made by others, and copies over the wire.
import { execFileSync } from "node:child_process";
import { Readable } from "node:stream";
import type { Header } from "tar-stream";
import { pack } from "tar-stream";
import type { TreeConflict } from "../../src/core/workspace.ts";
import { WriteTreeChunk_Conflict } from "../../src/gen/proto/mcpcontainer/container_pb.ts";
import { bytesOf, type FileRig } from "./file-rig.ts";

/** One line per entry: type, path, mode, owner, size, mtime in microseconds, link target, names, content hash, holes. */
export function treeLines(directory: string): string[] {
  const script = `
import os, sys, stat, hashlib
root = os.fsencode(sys.argv[1])
def line(path):
    s = os.lstat(path)
    rel = os.path.relpath(path, root)
    kind = stat.filemode(s.st_mode)
    target = os.readlink(path) if stat.S_ISLNK(s.st_mode) else b''
    digest = hashlib.sha256(open(path, 'rb').read()).hexdigest()[:16] if stat.S_ISREG(s.st_mode) else ''
    size = s.st_size if stat.S_ISREG(s.st_mode) else 0
    links = s.st_nlink if stat.S_ISREG(s.st_mode) else 0
    print(kind, repr(rel), s.st_uid, s.st_gid, size, s.st_mtime_ns // 1000, repr(target), links, digest)
for base, dirs, files in os.walk(root):
    line(base)
    for name in files + [d for d in dirs if os.path.islink(os.path.join(base, d))]:
        line(os.path.join(base, name))
`;
  const output = execFileSync("python3", ["-c", script, directory], { maxBuffer: 64 << 20 });
  return output.toString().trimEnd().split("\n").sort();
}

/** A tar made by somebody else's program, entry by entry. */
export async function tarOf(
  ...entries: readonly (Omit<Partial<Header>, "name"> & {
    readonly name: string;
    readonly content?: string;
  })[]
): Promise<Buffer> {
  const tar = pack();
  for (const { content = "", ...header } of entries) tar.entry(header, content);
  tar.finalize();
  return await bytesOf(Readable.from(tar));
}

const RULES: Readonly<Record<TreeConflict, WriteTreeChunk_Conflict>> = {
  fail: WriteTreeChunk_Conflict.FAIL,
  replace: WriteTreeChunk_Conflict.REPLACE,
  keep: WriteTreeChunk_Conflict.KEEP,
  rename: WriteTreeChunk_Conflict.RENAME,
};

/** Sends a tar to WriteTree in chunks of a size nobody would choose. */
export async function sendTar(rig: FileRig, path: string, tar: Buffer, conflict: TreeConflict = "fail") {
  function* chunks() {
    yield { path, conflict: RULES[conflict] };
    for (let at = 0; at < tar.length; at += 9_999) yield { data: tar.subarray(at, at + 9_999) };
  }
  const answer = await rig.client.writeTree(chunks());
  return { ...answer, conflicts: answer.conflicts.map((name) => Buffer.from(name).toString("latin1")) };
}

/** All of ReadTree: the tar and its summary. */
export async function receiveTar(rig: FileRig, path: string) {
  const parts: Uint8Array[] = [];
  for await (const chunk of rig.client.readTree({ path })) {
    if (chunk.summary !== undefined) return { tar: Buffer.concat(parts), summary: chunk.summary };
    parts.push(chunk.data);
  }
  throw new Error("no summary");
}

/** Copies a tree as the host does: what ReadTree sends goes to WriteTree with its summary. */
export async function copyTree(rig: FileRig, from: string, to: string, conflict: TreeConflict = "fail") {
  async function* chunks() {
    yield { path: to, conflict: RULES[conflict] };
    for await (const { data, summary } of rig.client.readTree({ path: from })) {
      yield { data, ...(summary === undefined ? {} : { summary }) };
    }
  }
  return await rig.client.writeTree(chunks());
}
