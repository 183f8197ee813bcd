// The file half of a Workspace on the machine this process runs on.
import { lstat, readlink, rename, stat } from "node:fs/promises";
import type {
  FileEntry,
  Listing,
  ListOptions,
  TextPage,
  Wait,
  Workspace,
  WorkspacePath,
} from "../../core/workspace.ts";
import { errnoOf } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { throwIfAborted } from "../../lib/signal.ts";
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
  "readText" | "writeFile" | "list" | "stat" | "mkdir" | "rename" | "remove" | "readRaw" | "writeRaw"
>;

export interface LocalFilesOptions {
  /** Absolute directory that relative paths are below; `/data` in a container. */
  readonly workDir: WorkspacePath;
}

/** Files of this machine, as the original's agent serves them. Holds nothing open between calls. */
export class LocalFiles implements FileMethods {
  readonly #workDir: BytePath;

  constructor(options: LocalFilesOptions) {
    this.#workDir = resolvePath("/", options.workDir);
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
}
