// Real pipes for children: what spawn calls "pipe" is a socket in Node and Bun, and `echo x > /dev/stderr` fails on one.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readlinkSync } from "node:fs";
import { faultFromErrno } from "./errno.ts";
import { Fault } from "./fault.ts";
import { libc } from "./libc.ts";
import { sessionMembers } from "./session.ts";
import { sleep } from "./signal.ts";

/** A pipe between this process and a child. Our end does not block, theirs does; both close on exec. */
export interface ChildPipe {
  readonly ours: number;
  readonly theirs: number;
}

/** Makes a pipe whose other end a child will read or write. The caller closes both ends. */
export async function childPipe(child: "reads" | "writes"): Promise<ChildPipe> {
  const seed = pipeByLibc() ?? (await pipeFromStock());
  try {
    return reopen(seed[0], child);
  } finally {
    for (const fd of seed) closeSync(fd);
  }
}

/** Both ends opened anew, so that O_NONBLOCK of one is not shared with the child. */
function reopen(fd: number, child: "reads" | "writes"): ChildPipe {
  const path = `/proc/self/fd/${fd}`;
  const [mine, other] =
    child === "reads" ? [constants.O_WRONLY, constants.O_RDONLY] : [constants.O_RDONLY, constants.O_WRONLY];
  try {
    const ours = openSync(path, mine | constants.O_NONBLOCK);
    try {
      return { ours, theirs: openSync(path, other) };
    } catch (error) {
      closeSync(ours);
      throw error;
    }
  } catch (error) {
    throw faultFromErrno(error, "Cannot make a pipe");
  }
}

const O_CLOEXEC = 0o2000000;

function pipeByLibc(): readonly [number, number] | undefined {
  const c = libc();
  if (c === undefined) return undefined;
  const fds = new Int32Array(2);
  if (c.pipe2(fds, O_CLOEXEC) !== 0) throw tooManyFiles();
  return [fds[0] ?? -1, fds[1] ?? -1];
}

function tooManyFiles(): Fault {
  return new Fault("resource_exhausted", "Cannot make a pipe: too many open files", {
    hint: "Wait until some of the running commands have ended",
  });
}

// Node cannot call pipe(2). A shell can: the pipes of a pipeline of waiting subshells are opened through /proc and kept
// in stock. Secondary runtime only; costs about a third of a millisecond per pipe, mostly off the path of a command.

const STOCK = 24;
const LOW = 8;
const stock: number[] = [];
let refill: Promise<void> | undefined;

async function pipeFromStock(): Promise<readonly [number]> {
  for (;;) {
    const fd = stock.pop();
    if (stock.length < LOW && refill === undefined) {
      refill = makeStock().finally(() => {
        refill = undefined;
      });
      refill.catch(() => undefined); // Whoever finds the stock empty waits for it and sees the error.
    }
    if (fd !== undefined) return [fd];
    await refill;
  }
}

async function makeStock(): Promise<void> {
  const line = Array.from({ length: STOCK + 1 }, () => "read x").join("|");
  const shell = spawn("/bin/sh", ["-c", line], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
    env: {},
  });
  shell.unref();
  const { pid } = shell;
  if (pid === undefined) {
    const [error] = (await once(shell, "error")) as [unknown];
    throw faultFromErrno(error, "Cannot run /bin/sh to make pipes");
  }
  const made: number[] = [];
  try {
    const writers = await pipelineWriters(pid);
    for (const [inode, path] of writers) {
      const fd = openSync(path, constants.O_RDWR);
      // A subshell that was still being set up could have shown the pipe of its neighbour.
      if (readlinkSync(`/proc/self/fd/${fd}`) === inode) made.push(fd);
      else closeSync(fd);
    }
  } catch (error) {
    for (const fd of made) closeSync(fd);
    throw faultFromErrno(error, "Cannot make pipes");
  } finally {
    process.kill(-pid, "SIGKILL");
  }
  await ended(pid);
  stock.push(...made);
}

/** A subshell that was killed in its `read` still takes a byte that is written before its end: nobody may read along. */
async function ended(sid: number): Promise<void> {
  while (sessionMembers(sid).length > 0) await sleep(1);
}

/** The distinct pipes that the subshells write to, by inode. */
async function pipelineWriters(sid: number): Promise<Map<string, string>> {
  for (let waited = 0; waited < 2_000; waited += 2) {
    const found = new Map<string, string>();
    for (const pid of sessionMembers(sid)) {
      if (pid === sid) continue;
      const path = `/proc/${pid}/fd/1`;
      try {
        const target = readlinkSync(path);
        if (target.startsWith("pipe:")) found.set(target, path);
      } catch {
        continue; // It is still being set up.
      }
    }
    if (found.size >= STOCK) return found;
    await sleep(2);
  }
  throw new Fault("internal", "Cannot make pipes: /bin/sh did not start its pipeline within 2 s");
}
