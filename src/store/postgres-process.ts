// The postmaster of a cluster as a process: found by its lock file, and trusted only after /proc agrees.
import { access, readFile, readlink, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { identify, isRunning, type ProcessIdentity, stopProcess } from "../lib/daemon.ts";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { deadline, sleep } from "../lib/signal.ts";

/** What holds a cluster. */
export type Postmaster =
  /** Nothing, or a lock file left by a process that is gone: Postgres takes it over by itself. */
  | { readonly kind: "none" }
  /** Dead, but not reaped yet: Postgres refuses to start until it is. */
  | { readonly kind: "zombie"; readonly pid: number }
  | { readonly kind: "alive"; readonly process: ProcessIdentity; readonly ready: boolean };

/** Time for a fast shutdown, which writes a checkpoint. */
const FAST_MS = 30_000;
/** Time for an immediate one, which the next start recovers from. */
const IMMEDIATE_MS = 10_000;

/** Looks at a cluster directory: lock file, then program, working directory and start of the process it names. */
export async function findPostmaster(data: string): Promise<Postmaster> {
  const lock = await readLock(data);
  if (lock === undefined) return { kind: "none" };
  const process = await identify(lock.pid);
  if (process === undefined) {
    return (await isThere(`/proc/${lock.pid}`)) ? { kind: "zombie", pid: lock.pid } : { kind: "none" };
  }
  if (!(await isPostmasterOf(lock.pid, data))) return { kind: "none" };
  return { kind: "alive", process, ready: lock.ready };
}

/** Ends a postmaster by a fast shutdown, else an immediate one. One that is gone is success. */
export async function stopPostmaster(postmaster: ProcessIdentity): Promise<void> {
  if (!(await isRunning(postmaster))) return;
  process.kill(postmaster.pid, "SIGINT");
  try {
    await deadline(undefined, FAST_MS, "stop the private Postgres", async (limit) => {
      while (await isRunning(postmaster)) await sleep(10, limit);
    });
  } catch (error) {
    if (!Fault.is(error, "deadline_exceeded")) throw error;
    await stopProcess(postmaster, IMMEDIATE_MS, "SIGQUIT");
  }
}

/** postmaster.pid: pid, data directory, start time, port, socket directory, address, shared memory, status. */
async function readLock(data: string): Promise<{ pid: number; ready: boolean } | undefined> {
  const lines = (await readIfThere(join(data, "postmaster.pid")))?.split("\n") ?? [];
  const pid = Number(lines[0]);
  // A file that is just being written has no number yet; the next look will find it.
  return Number.isSafeInteger(pid) && pid > 0 ? { pid, ready: lines[7]?.trim() === "ready" } : undefined;
}

async function isPostmasterOf(pid: number, data: string): Promise<boolean> {
  try {
    // A package upgrade under a running server leaves "… (deleted)".
    const exe = basename((await readlink(`/proc/${pid}/exe`)).replace(/ \(deleted\)$/, ""));
    const [cwd, cluster] = [await stat(`/proc/${pid}/cwd`), await stat(data)];
    // Its own backends have the same program and directory but name themselves "postgres: …".
    const title = await readFile(`/proc/${pid}/cmdline`, "utf8");
    return (
      exe === "postgres" &&
      cwd.ino === cluster.ino &&
      cwd.dev === cluster.dev &&
      !title.startsWith("postgres: ")
    );
  } catch (error) {
    if (gone(error)) return false;
    throw error;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (gone(error)) return undefined;
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

function gone(error: unknown): boolean {
  return errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH";
}
