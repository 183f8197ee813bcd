// What a tree leaves out, told up to a limit: a tree of a million sockets must not make a message of a million lines.
import type { TreeSkip } from "../../core/workspace.ts";
import { type BytePath, fsPath } from "../files/byte-path.ts";

const MAX_TOLD = 1000;
/** Bytes of their paths: those of a deep tree are long. */
const MAX_BYTES = 1 << 20;
/** Paths in messages have to be names, which `.` and nothing are not. */
const ROOT = "(root)";
const REST = "...";

/** Gathers what was left out and why. */
export class Skips {
  readonly #told: TreeSkip[] = [];
  #bytes = 0;
  #more = 0;
  #moreFailed = false;

  /** @param failed an error, rather than a kind of file that trees do not carry */
  add(path: BytePath, reason: string, failed: boolean): void {
    if (this.#told.length < MAX_TOLD && this.#bytes + path.length <= MAX_BYTES) {
      this.#bytes += path.length;
      this.#told.push({ path: fsPath(path === "." ? ROOT : path), reason, failed });
      return;
    }
    this.#more++;
    this.#moreFailed ||= failed;
  }

  /** The first thousand, and one line for the rest. */
  get list(): readonly TreeSkip[] {
    if (this.#more === 0) return this.#told;
    const rest = { path: Buffer.from(REST), reason: `and ${this.#more} more`, failed: this.#moreFailed };
    return [...this.#told, rest];
  }
}
