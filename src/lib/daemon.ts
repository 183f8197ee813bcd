// Daemons that outlive their starter: started in a session of their own, found again by pid and start time.
import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { open, readFile, rm } from "node:fs/promises";
import { writeFileAtomic } from "./atomic-file.ts";
import { SYSTEM_PATH } from "./command.ts";
import { errnoOf } from "./errno.ts";
import { Fault } from "./fault.ts";
import { sleep } from "./signal.ts";

/** A process named beyond doubt: a pid alone may have been given to another one. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks after boot. */
  readonly startTime: string;
}

/** The identity of a living process; undefined when it is gone or a zombie. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  let stat: string;
  try {
    stat = await readFile(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ESRCH") return undefined;
    throw error;
  }
  // The program's name is in parentheses and may hold anything, parentheses included.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTime = fields[19];
  if (fields[0] === "Z" || fields[0] === "X" || startTime === undefined) return undefined;
  return { pid, startTime };
}

/** Whether that very process still runs. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await identify(identity.pid))?.startTime === identity.startTime;
}

/** Reads a pid file written by `writePidFile`; undefined when there is none or its process is gone. */
export async function readPidFile(path: string): Promise<ProcessIdentity | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  const [pid, startTime] = text.trim().split(/\s+/);
  if (pid === undefined || startTime === undefined || !/^\d+$/.test(pid)) return undefined;
  const identity = { pid: Number(pid), startTime };
  return (await isRunning(identity)) ? identity : undefined;
}

/** Writes `pid starttime` as one line, as a whole. */
export async function writePidFile(path: string, identity: ProcessIdentity): Promise<void> {
  await writeFileAtomic(path, `${identity.pid} ${identity.startTime}\n`, 0o644);
}

/** How to start a daemon. */
export interface DaemonOptions {
  readonly argv: readonly string[];
  readonly pidFile: string;
  readonly logFile: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Starts a program in its own session with its output in a file, and records it. It does not die with us. */
export async function startDaemon(options: DaemonOptions): Promise<ProcessIdentity> {
  const [program, ...args] = options.argv;
  if (program === undefined) throw new Fault("invalid_argument", "Cannot start an empty command");
  await using log = await open(
    options.logFile,
    constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND,
    0o640,
  );
  const child = spawn(program, args, {
    detached: true,
    cwd: "/",
    stdio: ["ignore", log.fd, log.fd],
    env: { PATH: SYSTEM_PATH, LC_ALL: "C.UTF-8", ...options.env },
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.once("spawn", resolve);
  child.once("error", (error) => {
    reject(
      new Fault("failed_precondition", `Cannot start ${program}: ${error.message}`, {
        cause: error,
        hint: `Install the package that holds ${program}`,
      }),
    );
  });
  await promise;
  child.unref();
  const identity = child.pid === undefined ? undefined : await identify(child.pid);
  if (identity === undefined) {
    throw new Fault("unavailable", `Cannot start ${program}: it ended at once`, {
      hint: `Its last words are in ${options.logFile}`,
    });
  }
  await writePidFile(options.pidFile, identity);
  return identity;
}

/**
 * Ends a process: the signal, up to `graceMs`, then SIGKILL. A process that is gone is success.
 * @returns whether the signal alone was enough
 */
export async function stopProcess(
  identity: ProcessIdentity,
  graceMs: number,
  first: NodeJS.Signals = "SIGTERM",
): Promise<boolean> {
  for (const [signal, ms] of [
    [first, graceMs],
    ["SIGKILL", 5_000],
  ] as const) {
    if (!(await isRunning(identity))) return true;
    send(identity.pid, signal);
    const until = Date.now() + ms;
    while (Date.now() < until) {
      if (!(await isRunning(identity))) return signal === first;
      await sleep(20);
    }
  }
  throw new Fault("deadline_exceeded", `Cannot end process ${identity.pid}: it survived SIGKILL for 5 s`);
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

/** Removes a pid file of a process that ended. */
export async function removePidFile(path: string): Promise<void> {
  await rm(path, { force: true });
}
