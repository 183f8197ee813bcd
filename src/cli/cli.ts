// The CLI: finds the verb, runs it, turns errors into one clear line and an exit status.
import yargs, { type Argv } from "yargs";
import { CODES, Fault } from "../lib/fault.ts";
import { nearest } from "../lib/nearest.ts";
import type { Io } from "./io.ts";
import type { Bind, CommonArgs, Outcome } from "./verb.ts";
import { agentHelp } from "./verbs/agent.ts";
import { bot } from "./verbs/bot.ts";
import { cp } from "./verbs/cp.ts";
import { doctor } from "./verbs/doctor.ts";
import { exec, shell } from "./verbs/exec.ts";
import { cat, logs, ls } from "./verbs/files.ts";
import { host } from "./verbs/host.ts";
import { image } from "./verbs/image.ts";
import { migrate } from "./verbs/migrate.ts";
import { token } from "./verbs/token.ts";
import { versionLine } from "./version.ts";

const VERBS: readonly Bind[] = [
  host,
  bot,
  exec,
  shell,
  cp,
  ls,
  cat,
  logs,
  image,
  token,
  doctor,
  migrate,
  agentHelp,
];

/** Groups, whose second word is checked too. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  bot: ["create", "list", "show", "start", "stop", "delete", "limits"],
  image: ["build", "import", "pull", "list", "remove", "normalize"],
  token: ["create", "list", "delete"],
  migrate: ["up", "down", "status", "version", "force"],
};

/** Runs one command line. @returns the exit status */
export async function runCli(argv: string[]): Promise<number> {
  const stop = new AbortController();
  const onSignal = () => {
    stop.abort(new Fault("cancelled", "interrupted"));
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, onSignal);
  const io: Io = {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    signal: stop.signal,
  };
  try {
    checkWords(argv);
    const outcome: Outcome = { status: 0 };
    const parser = build(io, outcome);
    if (argv.length === 0) {
      io.stdout.write(`${await parser.getHelp()}\n`);
      return 0;
    }
    await parser.parseAsync(argv);
    return outcome.status;
  } catch (error) {
    const fault = error instanceof UsageError ? await usageFault(error, argv, io) : Fault.from(error);
    io.stderr.write(`memoh: ${fault.message}\n${fault.hint === undefined ? "" : `  ${fault.hint}\n`}`);
    return CODES[fault.code].exit;
  }
}

function build(io: Io, outcome: Outcome): Argv<CommonArgs> {
  let parser: Argv<CommonArgs> = yargs()
    .scriptName("memoh")
    .usage(
      "memoh: every bot gets its own Linux container, reached through an agent inside it\n\nUsage: $0 <verb> [options]",
    )
    .option("instance", {
      type: "string",
      describe: "Which host on this machine (or MEMOH_INSTANCE)",
      global: true,
    })
    .option("config", {
      type: "string",
      describe: "Config file (default /etc/<instance>/config.toml)",
      global: true,
    })
    .example([
      ["memoh host --detach", "start the host in the background"],
      ["memoh bot create demo", "make a bot"],
      ["memoh exec demo -- uname -a", "run a command in it"],
      ["memoh cp notes.md demo:/data/", "put a file into it"],
    ])
    .parserConfiguration({ "populate--": true, "parse-positional-numbers": false })
    .version(versionLine())
    .help()
    .alias("help", "h")
    .wrap(Math.min(110, io.stdout.columns || 110))
    .strict()
    .exitProcess(false)
    .showHelpOnFail(false)
    .fail((message: string | undefined, error: Error | undefined) => {
      throw error ?? new UsageError(message ?? "wrong usage");
    });
  for (const each of VERBS) parser = each(parser, io, outcome);
  return parser;
}

/** What yargs objects to. */
class UsageError extends Error {}

/** One line in yargs' own words, with the nearest option when one is unknown. */
async function usageFault(error: UsageError, argv: readonly string[], io: Io): Promise<Fault> {
  const end = argv.indexOf("--");
  const own = argv.slice(0, end < 0 ? undefined : end);
  const verb = own.slice(
    0,
    own.findIndex((word) => word.startsWith("-")),
  );
  const known = new Set(
    [...(await helpOf(verb, io)).matchAll(/--([a-z][a-z-]*)/g)].map((match) => match[1] ?? ""),
  );
  const unknown = own
    .map((word) => /^--(?:no-)?([^=]+)/.exec(word)?.[1])
    .find((name) => name !== undefined && !known.has(name));
  if (unknown !== undefined) {
    const guess = nearest(unknown, known);
    return new Fault("invalid_argument", `Unknown option: --${unknown}`, {
      hint: guess === undefined ? "Add --help to see what the verb takes" : `Did you mean: --${guess}`,
    });
  }
  return new Fault("invalid_argument", firstLine(error.message), {
    hint: "Add --help to see what the verb takes",
  });
}

/** The help of a verb, as --help prints it. */
async function helpOf(words: readonly string[], io: Io): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  await build(io, { status: 0 }).parse([...words, "--help"], {}, (_error, _argv, output) => {
    resolve(output);
  });
  return await promise;
}

/** An unknown verb is told with its nearest match before anything else is parsed. */
function checkWords(argv: readonly string[]): void {
  const words = argv.filter((word) => !word.startsWith("-"));
  const [first, second] = words;
  if (first === undefined || argv[0]?.startsWith("-") === true) return;
  const known = VERBS.map((each) => each.word);
  if (!known.includes(first)) throw unknownVerb(first, known);
  const seconds = GROUPS[first];
  if (seconds !== undefined && second !== undefined && argv[1] === second && !seconds.includes(second)) {
    throw unknownVerb(
      `${first} ${second}`,
      seconds.map((word) => `${first} ${word}`),
    );
  }
}

function unknownVerb(word: string, known: readonly string[]): Fault {
  const guess = nearest(word, known);
  return new Fault("invalid_argument", `Unknown verb: ${word}`, {
    hint: guess === undefined ? "See memoh --help" : `Did you mean: memoh ${guess}`,
  });
}

function firstLine(message: string): string {
  return message.split("\n")[0] ?? message;
}
