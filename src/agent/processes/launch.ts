// Starts a child as the leader of its own session, over real pipes or a terminal.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, readFileSync, writeFileSync } from "node:fs";
import type { TerminalSize } from "../../core/workspace.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { type FdReader, FdWriter, readFd } from "../../lib/fd-io.ts";
import { type ChildPipe, childPipe } from "../../lib/pipe.ts";
import { maskMasters, masterClosed, openPty, resizePty } from "../../lib/pty.ts";
import { sleep } from "../../lib/signal.ts";
import type { Command } from "./command.ts";

/** What the kernel says about an ended child. */
export interface ChildExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildOutput {
  readonly kind: "stdout" | "stderr";
  readonly reader: FdReader;
}

/** A running child. Its id is also its session and process group. */
export interface Child {
  readonly pid: number;
  readonly exited: Promise<ChildExit>;
  readonly outputs: readonly ChildOutput[];
  /** Feeds stdin; resolves when more is taken. @throws Fault failed_precondition once it is closed */
  write(data: Uint8Array): Promise<void>;
  /** Closes stdin after what was written; types end-of-file into a terminal. */
  endInput(): void;
  resize(size: TerminalSize): void;
  /** Closes our ends. */
  close(): Promise<void>;
}

/** Starts over three pipes. @throws Fault */
export async function launchWithPipes(command: Command): Promise<Child> {
  const pipes: ChildPipe[] = [];
  try {
    for (const side of ["reads", "writes", "writes"] as const) pipes.push(await childPipe(side));
    const [stdin, stdout, stderr] = pipes as [ChildPipe, ChildPipe, ChildPipe];
    const { pid, exited } = await start(command.file, command.args, command, [
      stdin.theirs,
      stdout.theirs,
      stderr.theirs,
    ]);
    const writer = new FdWriter(stdin.ours, () => {
      closeSync(stdin.ours);
    });
    const outputs: ChildOutput[] = [
      { kind: "stdout", reader: readFd(stdout.ours) },
      { kind: "stderr", reader: readFd(stderr.ours) },
    ];
    return {
      pid,
      exited,
      outputs,
      write: (data) => writer.write(data),
      endInput: () => {
        writer.end();
      },
      resize: () => {
        throw new Fault(
          "failed_precondition",
          "Cannot change the terminal size: the command has no terminal",
        );
      },
      close: async () => {
        writer.destroy();
        for (const { reader } of outputs) await reader.close();
      },
    };
  } catch (error) {
    for (const pipe of pipes) closeSync(pipe.ours);
    throw error;
  } finally {
    for (const pipe of pipes) closeSync(pipe.theirs);
  }
}

/** The child opens the terminal itself, as the leader of its session, which makes it the controlling terminal. */
const TERMINAL_SCRIPT = 'exec <>"$0" >&0 2>&1 "$@"';

/** ^D. After an unfinished line the first one only hands the line over. */
const END_OF_FILE = Buffer.from([4]);
const BOTH_ENDS = Buffer.from([4, 4]);

/**
 * Types ^D until the terminal is closed. Once is not enough: a program that changes the mode of its terminal (any shell
 * that starts) loses what was typed ahead, and one that asks again has to find the end again, as on a closed pipe.
 */
async function typeEndOfFile(writer: FdWriter, lineStart: boolean): Promise<void> {
  let typed = lineStart ? END_OF_FILE : BOTH_ENDS;
  for (let pause = 100; writer.open; pause = Math.min(pause * 2, 5_000)) {
    try {
      await writer.write(typed);
    } catch {
      return; // The terminal was closed meanwhile, which ends the input for good.
    }
    typed = END_OF_FILE;
    await sleep(pause, undefined, true);
  }
}

/** Starts under a terminal. @throws Fault */
export async function launchWithTerminal(command: Command, size: TerminalSize): Promise<Child> {
  const pty = openPty(size);
  let started: Awaited<ReturnType<typeof start>>;
  try {
    started = await start(
      "/bin/sh",
      ["-c", TERMINAL_SCRIPT, pty.path, command.file, ...command.args],
      command,
      [pty.slave, pty.slave, pty.slave],
    );
  } catch (error) {
    closeSync(pty.master);
    masterClosed(pty.master);
    throw error;
  } finally {
    closeSync(pty.slave);
  }
  const reader = readFd(pty.master);
  const writer = new FdWriter(pty.master, () => undefined);
  let closed = false;
  let inputEnded = false;
  let lineStart = true;
  return {
    ...started,
    outputs: [{ kind: "stdout", reader }],
    write: async (data) => {
      if (inputEnded)
        throw new Fault("failed_precondition", "Cannot write to the process: its stdin is closed");
      const last = data.at(-1);
      if (last !== undefined) lineStart = last === 0x0a || last === 0x0d;
      await writer.write(data);
    },
    endInput: () => {
      if (!inputEnded) void typeEndOfFile(writer, lineStart);
      inputEnded = true;
    },
    resize: (next) => {
      if (!closed) resizePty(pty.master, next);
    },
    close: async () => {
      closed = true;
      writer.destroy();
      await reader.close();
      masterClosed(pty.master);
    },
  };
}

async function start(
  file: string,
  args: readonly string[],
  command: Command,
  stdio: readonly number[],
): Promise<{ pid: number; exited: Promise<ChildExit> }> {
  const { promise: exited, resolve } = Promise.withResolvers<ChildExit>();
  let child: ChildProcess;
  try {
    child = withRaisedOomScore(() =>
      spawn(file, args, {
        argv0: file === command.file ? command.argv0 : file,
        stdio: maskMasters(stdio),
        env: command.env,
        cwd: command.cwd,
        detached: true,
      }),
    );
    child.on("exit", (code, signal) => {
      resolve({ code, signal });
    });
    if (child.pid === undefined) {
      const [error] = (await once(child, "error")) as [unknown];
      throw error;
    }
  } catch (error) {
    // A script without #! is for the shell, as execvp(3) has it; Bun leaves that to us.
    if (errnoOf(error) === "ENOEXEC" && file !== "/bin/sh") {
      return await start("/bin/sh", [file, ...args], command, stdio);
    }
    throw startFault(error, command);
  }
  return { pid: child.pid, exited };
}

function startFault(error: unknown, command: Command): Fault {
  const doing = `Cannot run ${command.argv0}`;
  switch (errnoOf(error)) {
    case "E2BIG":
      return new Fault("invalid_argument", `${doing}: argument list too long`, {
        cause: error,
        hint: "Send long input through stdin or a file; one argument holds at most 128 KiB",
      });
    case "ENOENT":
      return new Fault("not_found", `${doing}: no such program, or its interpreter is missing`, {
        cause: error,
        hint: "Check the first line of the script",
      });
    default:
      return faultFromErrno(error, doing);
  }
}

const OOM_SCORE = "/proc/self/oom_score_adj";
/** So that a greedy command dies before the agent. */
const CHILD_OOM_SCORE = 500;
let ownOomScore: string | undefined;

/**
 * Runs a synchronous spawn with the raised score, which the child inherits from its first instruction on; writing the
 * child's own file later would miss what it had forked by then. Any process may raise its score and come back.
 */
function withRaisedOomScore<T>(spawnNow: () => T): T {
  ownOomScore ??= readFileSync(OOM_SCORE, "utf8").trim();
  const raised = Math.max(CHILD_OOM_SCORE, Number(ownOomScore));
  writeFileSync(OOM_SCORE, String(raised));
  try {
    return spawnNow();
  } finally {
    writeFileSync(OOM_SCORE, ownOomScore);
  }
}
