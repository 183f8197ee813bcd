// The shim of a container that no longer answers: found by its command line and ended, as a last resort.
import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { identify, isRunning } from "../lib/daemon.ts";
import { errnoOf } from "../lib/errno.ts";

/** Which shim is meant: containerd writes all three into its command line. */
export interface ShimName {
  /** Socket of its daemon. */
  readonly socket: string;
  readonly namespace: string;
  readonly containerId: string;
}

/**
 * Kills a container's shim. Its daemon notices, kills what is left of the container and forgets the task; record and
 * data stay.
 * @returns whether there was one in our pid namespace
 */
export async function endShim(name: ShimName): Promise<boolean> {
  let found = false;
  for (const entry of await readdir("/proc")) {
    const identity = /^\d+$/.test(entry) ? await identify(Number(entry)) : undefined;
    if (identity === undefined || !isShim(await argvOf(identity.pid), name)) continue;
    if (!(await isRunning(identity))) continue;
    process.kill(identity.pid, "SIGKILL");
    found = true;
  }
  return found;
}

function isShim(argv: readonly string[], name: ShimName): boolean {
  const flag = (flag: string) => argv[argv.indexOf(flag) + 1];
  return (
    basename(argv[0] ?? "").startsWith("containerd-shim") &&
    flag("-namespace") === name.namespace &&
    flag("-id") === name.containerId &&
    flag("-address") === name.socket
  );
}

async function argvOf(pid: number): Promise<string[]> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ESRCH") return [];
    throw error;
  }
}
