// memoh exec and memoh shell: run a command in a bot, with the terminal when asked.
import type { RawData, WebSocket } from "ws";
import { CODES, type Code, Fault } from "../../lib/fault.ts";
import { type Io, writeOut } from "../io.ts";
import { apiOf, type CommonArgs, verb } from "../verb.ts";
import { botPath } from "./bot.ts";

/** Exit status of memoh's own failures, so that it is not taken for the command's (as in `docker exec`). */
const OWN_FAILURE = 125;
const TIMED_OUT = 124;

interface ExecArgs {
  readonly bot: string;
  readonly interactive: boolean;
  readonly tty: boolean;
  readonly workdir?: string | undefined;
  readonly env: string[];
  readonly timeout?: number | undefined;
  readonly command: string[] | undefined;
}

interface Final {
  readonly type: "exit" | "error";
  readonly exit_code?: number;
  readonly signal?: string | null;
  readonly timed_out?: boolean;
  readonly code?: Code;
  readonly message?: string;
  readonly hint?: string | null;
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGUSR2: 12,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
};

export const exec = verb<ExecArgs>({
  command: "exec <bot> [command..]",
  describe: "Run a command in a bot",
  examples: [
    ["exec demo -- ls -l /data", "one command"],
    ["exec demo -it -- python3", "with the terminal"],
    ["exec demo -w /tmp -e A=1 --timeout 30 -- sh -c 'echo $A; pwd'", "where, with what, how long"],
  ],
  options: (yargs) =>
    yargs
      .positional("bot", { type: "string", demandOption: true, describe: "Name or id of the bot" })
      .positional("command", { type: "string", array: true, describe: "The command, best after --" })
      .option("interactive", { alias: "i", type: "boolean", default: false, describe: "Pass stdin on" })
      .option("tty", { alias: "t", type: "boolean", default: false, describe: "Run under a terminal" })
      .option("workdir", { alias: "w", type: "string", describe: "Directory; relative is below /data" })
      .option("env", {
        alias: "e",
        type: "string",
        array: true,
        nargs: 1,
        default: [],
        describe: "Set a variable: K=V",
      })
      .option("timeout", { type: "number", describe: "Seconds; none without" }),
  run: async (args, io) => {
    const argv = [...(args.command ?? []), ...afterDashes(args)].map(String);
    if (argv.length === 0) {
      throw new Fault("invalid_argument", "Say which command to run", {
        hint: `For a shell: memoh shell ${args.bot}`,
      });
    }
    return await runInBot(args, io, {
      bot: args.bot,
      argv,
      workDir: args.workdir,
      env: envOf(args.env),
      timeout: args.timeout,
      stdin: args.interactive,
      tty: args.tty,
    });
  },
});

export const shell = verb<{ bot: string; workdir?: string | undefined }>({
  command: "shell <bot>",
  describe: "Open a shell in a bot",
  examples: [["shell demo", "bash when the image has it, sh otherwise"]],
  options: (yargs) =>
    yargs
      .positional("bot", { type: "string", demandOption: true, describe: "Name or id of the bot" })
      .option("workdir", { alias: "w", type: "string", describe: "Directory; relative is below /data" }),
  run: async (args, io) =>
    await runInBot(args, io, {
      bot: args.bot,
      // One command that finds the better shell by itself: no separate probe that could fail by itself.
      argv: ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l"],
      workDir: args.workdir,
      env: {},
      timeout: undefined,
      stdin: true,
      tty: io.stdin.isTTY,
    }),
});

/** Words after `--`, which yargs keeps apart. */
function afterDashes(args: object): readonly unknown[] {
  return "--" in args && Array.isArray(args["--"]) ? (args["--"] as unknown[]) : [];
}

interface Run {
  readonly bot: string;
  readonly argv: readonly string[];
  readonly workDir: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly timeout: number | undefined;
  readonly stdin: boolean;
  readonly tty: boolean;
}

async function runInBot(args: CommonArgs, io: Io, run: Run): Promise<number> {
  let socket: WebSocket;
  try {
    socket = await (await apiOf(args)).socket(botPath(run.bot, "/exec/ws"));
  } catch (error) {
    return report(io, Fault.from(error));
  }
  const terminal = run.tty && io.stdout.isTTY;
  const size = { cols: io.stdout.columns || 80, rows: io.stdout.rows || 24 };
  socket.send(
    JSON.stringify({
      argv: run.argv,
      work_dir: run.workDir,
      env: { ...(run.tty ? { TERM: "xterm-256color" } : {}), ...run.env },
      timeout: run.timeout,
      ...(run.tty ? { pty: size } : {}),
    }),
  );
  const raw = terminal && run.stdin && io.stdin.isTTY;
  if (raw) io.stdin.setRawMode(true);
  const onResize = () => {
    socket.send(JSON.stringify({ type: "resize", cols: io.stdout.columns, rows: io.stdout.rows }));
  };
  if (terminal) io.stdout.on("resize", onResize);
  // ^C without a terminal is for the command, as it would be locally.
  const onInterrupt = () => {
    socket.send(JSON.stringify({ type: "signal", signal: "SIGINT" }));
  };
  io.signal.addEventListener("abort", onInterrupt, { once: true });
  try {
    const final = outputOf(socket, io);
    if (run.stdin) sendInput(socket, io);
    else socket.send(JSON.stringify({ type: "eof" }));
    return statusOf(io, await final);
  } finally {
    if (raw) io.stdin.setRawMode(false);
    io.stdout.off("resize", onResize);
    io.signal.removeEventListener("abort", onInterrupt);
    io.stdin.pause();
    io.stdin.removeAllListeners("data");
    socket.terminate();
  }
}

function sendInput(socket: WebSocket, io: Io): void {
  io.stdin.on("data", (data: Buffer) => {
    socket.send(data, { binary: true }, () => {
      io.stdin.resume();
    });
    // One chunk on its way at a time: a command that does not read does not fill this process.
    io.stdin.pause();
  });
  io.stdin.on("end", () => {
    socket.send(JSON.stringify({ type: "eof" }));
  });
  io.stdin.resume();
}

/** Copies output until the final message. */
async function outputOf(socket: WebSocket, io: Io): Promise<Final> {
  const { promise, resolve, reject } = Promise.withResolvers<Final>();
  let writing = Promise.resolve();
  let ended = false;
  socket.on("message", (data: RawData, binary: boolean) => {
    const bytes = data as Buffer;
    if (!binary) {
      const final = JSON.parse(bytes.toString("utf8")) as Final;
      // The host closes right after it: what is still being written goes on.
      ended = true;
      void writing.then(() => {
        resolve(final);
      });
      return;
    }
    const stream = bytes[0] === 2 ? io.stderr : io.stdout;
    socket.pause();
    writing = writing
      .then(() => writeOut(stream, bytes.subarray(1)))
      .then(() => {
        socket.resume();
      });
  });
  socket.on("close", () => {
    if (ended) return;
    reject(new Fault("unavailable", "The host broke off before the command ended"));
  });
  return await promise;
}

function statusOf(io: Io, final: Final): number {
  if (final.type === "error") {
    return report(
      io,
      new Fault(final.code ?? "unknown", final.message ?? "", { hint: final.hint ?? undefined }),
    );
  }
  if (final.timed_out === true) {
    io.stderr.write("memoh: timed out\n");
    return TIMED_OUT;
  }
  if (final.signal !== undefined && final.signal !== null) return 128 + (SIGNAL_NUMBERS[final.signal] ?? 9);
  return final.exit_code ?? OWN_FAILURE;
}

/** memoh's own failure: 126 and 127 as in shells, usage errors 64, the rest 125. */
function report(io: Io, fault: Fault): number {
  io.stderr.write(`memoh: ${fault.message}\n${fault.hint === undefined ? "" : `  ${fault.hint}\n`}`);
  if (fault.code === "invalid_argument") return CODES.invalid_argument.exit;
  if (fault.message.startsWith("Cannot run") && fault.code === "not_found") return 127;
  if (fault.message.startsWith("Cannot run") && fault.code === "permission_denied") return 126;
  return OWN_FAILURE;
}

function envOf(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1)
        throw new Fault("invalid_argument", `Cannot use -e ${pair}`, { hint: "Write -e NAME=VALUE" });
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
