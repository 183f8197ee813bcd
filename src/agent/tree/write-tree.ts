// Unpacks a tar below a directory, as hostile input, and checks that it is the tree that was sent.
import { createHash } from "node:crypto";
import { TreeHash } from "../../core/tree-hash.ts";
import type { TreeConflict, TreeSummary, TreeWritten } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";
import { findXattrs } from "../../lib/xattr.ts";
import { type BytePath, fsPath } from "../files/byte-path.ts";
import { Directory } from "../files/directory.ts";
import { during, fileFault } from "../files/file-fault.ts";
import { lookUp } from "../files/look-up.ts";
import { makeDirs } from "../files/make-dirs.ts";
import { untilAborted } from "../files/until-aborted.ts";
import { Attributes, type Ownership } from "./attributes.ts";
import { Conflicts } from "./conflicts.ts";
import { checkedEntry } from "./entry-path.ts";
import { Skips } from "./skips.ts";
import { readTar } from "./tar-reader.ts";
import { TreeTarget } from "./tree-target.ts";

export interface WriteTreeOptions {
  readonly conflict: TreeConflict;
  readonly ownership: Ownership;
  /** Asked after the data: the summary of who sent it. */
  readonly expected?: (() => Promise<TreeSummary | undefined>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes a tree below a directory, which is made when missing. Directories merge, and keep what they are like unless
 * the rule is `replace`. After a failure every file is whole or was never there.
 * @throws Fault invalid_argument (not a tar, or an entry leads out of the tree), already_exists, failed_precondition,
 *   data_loss (cut off, or not what was sent), resource_exhausted, permission_denied
 */
export async function writeTree(
  path: BytePath,
  data: AsyncIterable<Uint8Array>,
  options: WriteTreeOptions,
): Promise<TreeWritten> {
  const fresh = (await during("tree", path, async () => await lookUp(fsPath(path)))) === undefined;
  await makeDirs(path);
  const found = await findXattrs();
  const xattrs = found?.cheap === true ? found : undefined;
  const skips = new Skips();
  const conflicts = new Conflicts(options.conflict);
  const hash = new TreeHash();
  const root = await during("tree", path, async () => await Directory.open(path));
  const attributes = new Attributes(options.ownership, xattrs, skips);
  await using target = new TreeTarget(root, fresh, { conflicts, attributes, skips });
  for await (const { entry: sent, content } of readTar(untilAborted(data, options.signal))) {
    const entry = checkedEntry(sent);
    const sha256 = createHash("sha256");
    try {
      await target.write(entry, hashed(content, sha256));
    } catch (error) {
      throw fileFault(error, "tree", entry.path);
    }
    if (entry.type === "file") hash.add(entry, sha256.digest());
    else hash.add(entry);
  }
  await during("tree", path, async () => {
    await target.finish();
  });
  const summary: TreeSummary = {
    entries: hash.entries,
    bytes: hash.bytes,
    sha256: hash.digest(),
    skipped: skips.list,
    xattrsUnsupported: xattrs === undefined,
  };
  mustMatch(summary, await options.expected?.());
  return { summary, conflicts: conflicts.list };
}

async function* hashed(
  content: AsyncIterable<Uint8Array>,
  hash: { update(data: Uint8Array): unknown },
): AsyncGenerator<Uint8Array> {
  for await (const chunk of content) {
    hash.update(chunk);
    yield chunk;
  }
}

function mustMatch(written: TreeSummary, sent: TreeSummary | undefined): void {
  if (sent === undefined) return;
  const same =
    written.entries === sent.entries && written.bytes === sent.bytes && written.sha256.equals(sent.sha256);
  if (same) return;
  throw new Fault(
    "data_loss",
    `tree: what was written (${written.entries} entries, ${written.bytes} bytes) is not what was sent (${sent.entries} entries, ${sent.bytes} bytes)`,
    { hint: "Send it again" },
  );
}
