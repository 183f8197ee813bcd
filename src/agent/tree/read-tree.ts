// Opens a file tree to be read as a pax tar.
import { stat } from "node:fs/promises";
import type { TreeReader, TreeSummary } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";
import { findXattrs } from "../../lib/xattr.ts";
import { type BytePath, fsPath } from "../files/byte-path.ts";
import { Directory } from "../files/directory.ts";
import { during, fileFault } from "../files/file-fault.ts";
import { openRegular } from "../files/open-regular.ts";
import { gather } from "./gather.ts";
import { TreeSource } from "./tree-source.ts";

/**
 * Opens a tree or a single file. Errors of the path itself come here; what cannot be read further down is skipped and
 * told in the summary. Nothing stays open when nobody takes the bytes.
 * @throws Fault not_found, permission_denied, failed_precondition (neither a directory nor a regular file)
 */
export async function readTree(path: BytePath, signal?: AbortSignal): Promise<TreeReader> {
  const isDirectory = await during("open", path, async () => (await stat(fsPath(path))).isDirectory());
  // Opened once to have the errors now, and again when the first byte is asked for.
  if (isDirectory) await during("open", path, async () => await (await Directory.open(path)).release());
  else await (await openRegular(path)).handle.close();
  const xattrs = await findXattrs();
  const source = new TreeSource(path, xattrs?.cheap === true ? xattrs : undefined, signal);
  const { promise: summary, resolve, reject } = Promise.withResolvers<TreeSummary>();
  // Whoever takes the bytes sees their error; nobody has to ask for the summary.
  summary.catch(() => undefined);
  async function* data(): AsyncGenerator<Uint8Array> {
    try {
      yield* gather(isDirectory ? source.directory() : source.file());
      resolve(source.summary());
    } catch (error) {
      const fault = fileFault(error, "tree", path);
      reject(fault);
      throw fault;
    } finally {
      reject(new Fault("cancelled", "tree: not read to its end"));
    }
  }
  return { data: data(), summary };
}
