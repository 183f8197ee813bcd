// The program: turns argv into one mode, loads only what that mode needs, and is the one place that exits.
import { versionLine } from "./cli/version.ts";
import { CODES, Fault } from "./lib/fault.ts";

/** Runs one mode to its end. @returns the exit status */
async function run(argv: string[]): Promise<number> {
  const [verb, ...rest] = argv;
  // Inside a container only the agent's modules may cost time and memory: it is told apart before the CLI loads.
  const helps = rest.includes("--help") || rest.includes("-h");
  if (verb === "agent" && !helps) return await (await import("./agent/agent-main.ts")).agentMain(rest);
  if (verb === "--version" && rest.length === 0) {
    process.stdout.write(`${versionLine()}\n`);
    return 0;
  }
  return await (await import("./cli/cli.ts")).runCli(argv);
}

/** Prints what nobody caught. Only the stack: an uncaught error of the one-line bundle would print all its source. */
function die(error: unknown): never {
  const fault = Fault.from(error);
  process.stderr.write(
    fault.code === "internal"
      ? `memoh: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`
      : `memoh: ${fault.message}\n${fault.hint === undefined ? "" : `  ${fault.hint}\n`}`,
  );
  process.exit(CODES[fault.code].exit);
}

/** Waits until everything written has left: an exit in between cuts the output of a slow reader. */
async function flush(stream: NodeJS.WriteStream): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once("error", () => resolve());
  stream.write("", () => resolve());
  await promise;
}

process.on("uncaughtException", die);
process.on("unhandledRejection", die);
// A reader that went away (`memoh ls bot | head`) ends the program like any other filter.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(128 + 13);
  die(error);
});

run(process.argv.slice(2))
  .then(async (status) => {
    await flush(process.stdout);
    await flush(process.stderr);
    process.exit(status);
  })
  .catch(die);
