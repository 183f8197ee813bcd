// What a path names: the thing itself, never what a link leads to.
import type { BigIntStats } from "node:fs";
import { lstat } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";

/** lstat, or undefined when there is nothing. */
export async function lookUp(path: Buffer): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
