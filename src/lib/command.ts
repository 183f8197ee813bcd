// Runs a program of the host to its end: argv only, bounded output, a deadline, no shell.
import { spawn } from "node:child_process";
import { errnoOf } from "./errno.ts";
import { Fault } from "./fault.ts";
import { reasonOf, withDeadline } from "./signal.ts";

/** How to run a program. */
export interface CommandOptions {
  /** Bytes for its stdin; empty when absent. */
  readonly input?: string | Uint8Array;
  /** Its whole environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  /** Milliseconds until it is killed. */
  readonly timeoutMs?: number;
  /** Bytes kept of each stream; more is dropped from the front. */
  readonly maxOutput?: number;
  /** Gives it a process group of its own, all of which is killed at the deadline: for programs that start others. */
  readonly group?: boolean;
}

/** How a program ended. */
export interface CommandResult {
  /** Exit code; 128 + n when signal n ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** PATH for programs of the distribution, sbin included: daemons are often started without it. */
export const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Runs a program and returns how it ended, whatever its exit code.
 * @throws Fault not_found when there is no such program, deadline_exceeded and cancelled
 */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const [program, ...args] = argv;
  if (program === undefined) throw new Fault("invalid_argument", "Cannot run an empty command");
  using limit = withDeadline(
    options.signal,
    options.timeoutMs ?? 60_000,
    `${program} ${args[0] ?? ""}`.trim(),
  );
  if (limit.signal.aborted) throw reasonOf(limit.signal);
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: SYSTEM_PATH, LC_ALL: "C.UTF-8", ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: options.group === true,
  });
  const max = options.maxOutput ?? 8 << 20;
  const stdout = collect(child.stdout, max);
  const stderr = collect(child.stderr, max);
  const { promise, resolve, reject } = Promise.withResolvers<CommandResult>();
  const kill = () => {
    if (options.group === true && child.pid !== undefined) killGroup(child.pid);
    else child.kill("SIGKILL");
    // Ended already, and something it left behind holds its output: do not wait for that.
    if (child.exitCode !== null || child.signalCode !== null) reject(reasonOf(limit.signal));
  };
  limit.signal.addEventListener("abort", kill, { once: true });
  // A program that ends without reading its input is not an error of ours.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  try {
    child.on("exit", () => {
      if (limit.signal.aborted) reject(reasonOf(limit.signal));
    });
    child.on("error", (error) => {
      reject(
        errnoOf(error) === "ENOENT"
          ? new Fault("not_found", `Cannot run ${program}: no such program`, { cause: error })
          : Fault.from(error, `Cannot run ${program}`),
      );
    });
    child.on("close", (code, signal) => {
      resolve({
        code: code ?? (signal === null ? 255 : 128 + 9),
        stdout: stdout(),
        stderr: stderr(),
      });
    });
    const result = await promise;
    if (limit.signal.aborted) throw reasonOf(limit.signal);
    return result;
  } finally {
    limit.signal.removeEventListener("abort", kill);
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

/** Runs a program that must succeed; its last words become the Fault's message otherwise. */
export async function mustRun(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const result = await runCommand(argv, options);
  if (result.code !== 0) {
    const words = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
    throw new Fault("internal", `${argv.slice(0, 3).join(" ")} ended with ${result.code}: ${words}`);
  }
  return result;
}

function collect(stream: NodeJS.ReadableStream, max: number): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    size += chunk.length;
    while (size > max && chunks.length > 1) size -= chunks.shift()?.length ?? 0;
  });
  return () => Buffer.concat(chunks).toString("utf8");
}
