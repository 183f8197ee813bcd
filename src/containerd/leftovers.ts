// What can be left of a task beside its daemon's knowledge, a shim and the runtime's state, ended as a last resort.
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { mustRun } from "../lib/command.ts";
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

/** Where the shim has its runtime keep state, by namespace: containerd's own constant. */
const RUNTIME_ROOT = "/run/containerd/runc";

/**
 * Kills what the runtime still runs under the container's name and deletes its state; the root file system is not
 * touched. Nothing there is success. Only for a container of which the daemon knows no task.
 * @param binary `runc` or what takes its place
 */
export async function deleteRuntimeState(name: ShimName, binary: string): Promise<void> {
  const root = join(RUNTIME_ROOT, name.namespace);
  await mustRun([binary, "--root", root, "delete", "--force", name.containerId], { timeoutMs: 10_000 });
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
