// What happens to an entry whose name is taken, and to everything that comes below it afterwards.
import type { BigIntStats } from "node:fs";
import type { TreeConflict } from "../../core/workspace.ts";
import { type BytePath, fsPath } from "../files/byte-path.ts";
import type { Directory } from "../files/directory.ts";
import { pathFault } from "../files/file-fault.ts";
import { lookUp } from "../files/look-up.ts";

/** Bytes of names that are told: they travel in one message. */
const MAX_TOLD = 8 << 20;
const MAX_NAME = 255;
const SUFFIX = ".from-host";

/** Decides by one rule and remembers where entries went instead. */
export class Conflicts {
  readonly #rule: TreeConflict;
  /** Entries that were written under another name: path in the tree, and where they are. */
  readonly #moved = new Map<BytePath, BytePath>();
  /** Entries that were not written. */
  readonly #left = new Set<BytePath>();
  readonly #told: Buffer[] = [];
  #toldBytes = 0;
  #more = 0;

  constructor(rule: TreeConflict) {
    this.#rule = rule;
  }

  /** Whether directories that exist take over what the tree says about them. */
  get replaces(): boolean {
    return this.#rule === "replace";
  }

  /** Paths of entries that existed and were kept or renamed. */
  get list(): readonly Buffer[] {
    return this.#more === 0 ? this.#told : [...this.#told, Buffer.from(`and ${this.#more} more`)];
  }

  /** Where the names of an entry lead now. @returns undefined below something that was not written */
  resolve(parts: readonly BytePath[]): readonly BytePath[] | undefined {
    if (this.#moved.size === 0 && this.#left.size === 0) return parts;
    let path = "";
    let actual: readonly BytePath[] = [];
    for (const part of parts) {
      path = path === "" ? part : `${path}/${part}`;
      if (this.#left.has(path)) return undefined;
      const moved = this.#moved.get(path);
      actual = moved === undefined ? [...actual, part] : moved.split("/");
    }
    return actual;
  }

  /**
   * The name an entry gets where something else has its name.
   * @returns undefined when it is not to be written
   * @throws Fault already_exists, failed_precondition (a directory is never replaced by something else)
   */
  async settle(
    directory: Directory,
    parts: readonly BytePath[],
    actual: readonly BytePath[],
    existing: BigIntStats,
  ): Promise<BytePath | undefined> {
    const path = parts.join("/");
    const name = actual.at(-1) ?? "";
    switch (this.#rule) {
      case "fail":
        throw pathFault(
          "already_exists",
          "tree",
          path,
          "exists",
          "Choose another target, or what to do with files that exist",
        );
      case "replace":
        if (!existing.isDirectory()) return name;
        throw pathFault(
          "failed_precondition",
          "tree",
          path,
          "is a directory here and something else in the tree",
        );
      case "keep":
        this.#left.add(path);
        this.#tell(path);
        return undefined;
      case "rename": {
        const free = await freeName(directory, name);
        this.#moved.set(path, [...actual.slice(0, -1), free].join("/"));
        this.#tell(path);
        return free;
      }
    }
  }

  #tell(path: BytePath): void {
    if (this.#toldBytes > MAX_TOLD) {
      this.#more++;
      return;
    }
    this.#told.push(fsPath(path));
    this.#toldBytes += path.length;
  }
}

/** `NAME.from-host`, then `NAME.from-host-2`… */
async function freeName(directory: Directory, name: BytePath): Promise<BytePath> {
  for (let n = 1; ; n++) {
    const suffix = n === 1 ? SUFFIX : `${SUFFIX}-${n}`;
    const free = name.slice(0, MAX_NAME - suffix.length) + suffix;
    if ((await lookUp(directory.in(free))) === undefined) return free;
  }
}
