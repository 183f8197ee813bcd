// The file half of a Workspace on the machine this process runs on.
import { lstat, readlink, rename, stat } from "node:fs/promises";
import type {
  FileEntry,
  Listing,
  ListOptions,
  TextPage,
  TreeConflict,
  TreeReader,
  TreeSummary,
  TreeWritten,
  Wait,
  Workspace,
  WorkspacePath,
} from "../../core/workspace.ts";
import { errnoOf } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import type { Ownership } from "../tree/attributes.ts";
import { readTree } from "../tree/read-tree.ts";
import { writeTree } from "../tree/write-tree.ts";
import { type BytePath, fsPath, nameOf, parentOf, requirePath, resolvePath } from "./byte-path.ts";
import { fileEntry } from "./file-entry.ts";
import { during, fileFault } from "./file-fault.ts";
import { list } from "./list.ts";
import { makeDirs } from "./make-dirs.ts";
import { readRaw } from "./read-raw.ts";
import { readText } from "./read-text.ts";
import { remove } from "./remove.ts";
import { replaceFile } from "./replace-file.ts";

/** The methods of a Workspace that are about files. */
export type FileMethods = Pick<
  Workspace,
  | "readText"
  | "writeFile"
  | "list"
  | "stat"
  | "mkdir"
  | "rename"
  | "remove"
  | "readRaw"
  | "writeRaw"
  | "readTree"
  | "writeTree"
>;

export interface LocalFilesOptions {
  /** Absolute directory that relative paths are below; `/data` in a container. */
  readonly workDir: WorkspacePath;
  /**
   * Whose files written trees become: `exact` when this process is root, else `own`. Say `own` wherever a tree comes
   * from a bot and this machine is not the bot's.
   */
  readonly ownership?: Ownership;
}

/** Files of this machine, as the original's agent serves them. Holds nothing open between calls. */
export class LocalFiles implements FileMethods {
  readonly #workDir: BytePath;
  readonly #ownership: Ownership;

  constructor(options: LocalFilesOptions) {
    this.#workDir = resolvePath("/", options.workDir);
    this.#ownership = options.ownership ?? (process.getuid?.() === 0 ? "exact" : "own");
  }

  async readText(
    path: WorkspacePath,
    options: Wait & { readonly lineOffset?: number; readonly lines?: number } = {},
  ): Promise<TextPage> {
    return await readText(requirePath(this.#workDir, path), options);
  }

  async writeFile(path: WorkspacePath, content: Uint8Array, wait: Wait = {}): Promise<void> {
    const target = requirePath(this.#workDir, path);
    await replaceFile(target, [content], { mode: 0o644, opening: "write", signal: wait.signal });
  }

  async list(path: WorkspacePath, options: ListOptions = {}): Promise<Listing> {
    return await list(resolvePath(this.#workDir, path), options);
  }

  async stat(path: WorkspacePath, options: Wait & { readonly noFollow?: boolean } = {}): Promise<FileEntry> {
    const target = requirePath(this.#workDir, path);
    throwIfAborted(options.signal);
    try {
      if (options.noFollow !== true) {
        return fileEntry(nameOf(target), await stat(fsPath(target), { bigint: true }));
      }
      const stats = await lstat(fsPath(target), { bigint: true });
      const link = stats.isSymbolicLink()
        ? await readlink(fsPath(target), { encoding: "latin1" })
        : undefined;
      return fileEntry(nameOf(target), stats, link);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") throw new Fault("not_found", "not found", { cause: error });
      throw fileFault(error, "stat", target);
    }
  }

  async mkdir(path: WorkspacePath, wait: Wait = {}): Promise<void> {
    const target = requirePath(this.#workDir, path);
    throwIfAborted(wait.signal);
    await makeDirs(target);
  }

  async rename(from: WorkspacePath, to: WorkspacePath, wait: Wait = {}): Promise<void> {
    const message = "old_path and new_path are required";
    const source = requirePath(this.#workDir, from, message);
    const target = requirePath(this.#workDir, to, message);
    throwIfAborted(wait.signal);
    // Looked at first, so that a missing source leaves no directories behind.
    await during("rename", source, async () => await lstat(fsPath(source)));
    await makeDirs(parentOf(target), "mkdir parent");
    await during("rename", source, async () => {
      await rename(fsPath(source), fsPath(target));
    });
  }

  async remove(path: WorkspacePath, options: Wait & { readonly recursive?: boolean } = {}): Promise<void> {
    const target = requirePath(this.#workDir, path);
    throwIfAborted(options.signal);
    await remove(target, options);
  }

  async readRaw(
    path: WorkspacePath,
    options: Wait & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<AsyncIterable<Uint8Array>> {
    return await readRaw(requirePath(this.#workDir, path), options);
  }

  async writeRaw(path: WorkspacePath, source: AsyncIterable<Uint8Array>, wait: Wait = {}): Promise<number> {
    const target = requirePath(this.#workDir, path);
    return await replaceFile(target, source, { mode: 0o666, opening: "create", signal: wait.signal });
  }

  async readTree(path: WorkspacePath, wait: Wait = {}): Promise<TreeReader> {
    const target = requirePath(this.#workDir, path);
    throwIfAborted(wait.signal);
    return await readTree(target, wait.signal);
  }

  async writeTree(
    path: WorkspacePath,
    data: AsyncIterable<Uint8Array>,
    options: Wait & {
      readonly conflict?: TreeConflict;
      /** Undefined when the sender said nothing. */
      readonly expected?: () => Promise<TreeSummary | undefined>;
    } = {},
  ): Promise<TreeWritten> {
    const target = requirePath(this.#workDir, path);
    const { conflict = "fail", expected, signal } = options;
    throwIfAborted(signal);
    return await writeTree(target, data, { conflict, expected, signal, ownership: this.#ownership });
  }
}
