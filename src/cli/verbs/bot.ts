// memoh bot: create, list, show, start, stop, delete, limits.
import type { Argv } from "yargs";
import { parseBytes } from "../../config/values.ts";
import { Fault } from "../../lib/fault.ts";
import type { BotJson, Items } from "../api-types.ts";
import { formatAge, formatBytes, type Io, printFields, printJson, printTable } from "../io.ts";
import { withProgress } from "../progress.ts";
import { apiOf, type CommonArgs, group, jsonOption, verb } from "../verb.ts";

interface BotArgs {
  readonly bot: string;
  readonly json: boolean;
}

interface LimitArgs {
  readonly memory?: string | undefined;
  readonly pids?: number | undefined;
  readonly cpus?: number | undefined;
}

function botOptions(yargs: Argv<CommonArgs>) {
  return jsonOption(
    yargs.positional("bot", { type: "string", demandOption: true, describe: "Name or id of the bot" }),
  );
}

function limitOptions<T>(yargs: Argv<T>) {
  return yargs
    .option("memory", { type: "string", describe: "Memory limit, such as 512M or 2G" })
    .option("pids", { type: "number", describe: "Limit of processes and threads" })
    .option("cpus", { type: "number", describe: "Limit of cores, such as 0.5" });
}

function limitsOf(args: LimitArgs): object | undefined {
  const limits: Record<string, number> = {};
  if (args.memory !== undefined) {
    const bytes = parseBytes(args.memory);
    if (bytes === undefined) {
      throw new Fault("invalid_argument", `Cannot use --memory ${args.memory}`, { hint: "Write 512M or 2G" });
    }
    limits["memory"] = bytes;
  }
  if (args.pids !== undefined) limits["pids"] = args.pids;
  if (args.cpus !== undefined) limits["cpus"] = args.cpus;
  return Object.keys(limits).length === 0 ? undefined : limits;
}

/** `/bots/NAME` */
export function botPath(bot: string, rest = ""): string {
  return `/bots/${encodeURIComponent(bot)}${rest}`;
}

async function printBot(io: Io, bot: BotJson): Promise<void> {
  const { limits } = bot;
  const error = bot.last_error;
  await printFields(io, [
    ["name", bot.name],
    ["id", bot.id],
    ["state", bot.state === bot.desired ? bot.state : `${bot.state} (wanted: ${bot.desired})`],
    ["ip", bot.ip ?? "-"],
    ["container", bot.container_id ?? "-"],
    ["image", bot.image ?? "-"],
    [
      "limits",
      [
        limits.memory === undefined ? "" : `memory ${formatBytes(limits.memory)}`,
        limits.pids === undefined ? "" : `pids ${limits.pids}`,
        limits.cpus === undefined ? "" : `cpus ${limits.cpus}`,
      ]
        .filter((text) => text !== "")
        .join(", "),
    ],
    ["disk", bot.disk_usage === null ? "-" : formatBytes(bot.disk_usage)],
    ["created", `${bot.created_at} (${formatAge(bot.created_at)} ago)`],
    ...(error === null
      ? []
      : ([
          ["last error", `${error.message} (${error.code}, step ${error.step}, ${formatAge(error.at)} ago)`],
          ["what to do", error.hint ?? "-"],
          ["next try", bot.next_attempt_at ?? (error.retryable ? "soon" : "when you start it again")],
        ] as const)),
  ]);
}

const create = verb<{ name: string; image?: string | undefined; start: boolean; json: boolean } & LimitArgs>({
  command: "create <name>",
  describe: "Create a bot and start it",
  examples: [
    ["bot create demo", "a bot from the default image"],
    ["bot create tiny --image debian:12 --memory 256M", "another image, less memory"],
  ],
  options: (yargs) =>
    limitOptions(
      jsonOption(yargs.positional("name", { type: "string", demandOption: true, describe: "Its name" })),
    )
      .option("image", { type: "string", describe: "Image; the configured default otherwise" })
      .option("start", { type: "boolean", default: true, describe: "--no-start leaves it stopped" }),
  run: async (args, io) => {
    const api = await apiOf(args);
    const bot = (await withProgress(io, `Creating bot ${args.name}`, () =>
      api.json({
        method: "POST",
        path: "/bots",
        json: { name: args.name, image: args.image, start: args.start, limits: limitsOf(args) },
        signal: io.signal,
      }),
    )) as BotJson;
    if (args.json) await printJson(io, bot);
    else await printBot(io, bot);
    return 0;
  },
});

const list = verb<{ json: boolean }>({
  command: "list",
  describe: "List bots",
  examples: [["bot list --json", "for scripts"]],
  options: (yargs) => jsonOption(yargs),
  run: async (args, io) => {
    const { items } = (await (
      await apiOf(args)
    ).json({ path: "/bots", signal: io.signal })) as Items<BotJson>;
    if (args.json) await printJson(io, items);
    else {
      await printTable(
        io,
        ["NAME", "STATE", "IP", "IMAGE", "DISK", "AGE", "LAST ERROR"],
        items.map((bot) => [
          bot.name,
          bot.state,
          bot.ip ?? "-",
          bot.image ?? "-",
          bot.disk_usage === null ? "-" : formatBytes(bot.disk_usage),
          formatAge(bot.created_at),
          bot.last_error?.message ?? "",
        ]),
      );
    }
    return 0;
  },
});

const show = verb<BotArgs>({
  command: "show <bot>",
  describe: "Show a bot: state, address, image, limits, last error",
  examples: [["bot show demo", "by name"]],
  options: botOptions,
  run: async (args, io) => {
    const bot = (await (await apiOf(args)).json({ path: botPath(args.bot), signal: io.signal })) as BotJson;
    if (args.json) await printJson(io, bot);
    else await printBot(io, bot);
    return 0;
  },
});

function change(word: "start" | "stop", doing: string, describe: string) {
  return verb<BotArgs>({
    command: `${word} <bot>`,
    describe,
    examples: [[`bot ${word} demo`, describe.toLowerCase()]],
    options: botOptions,
    run: async (args, io) => {
      const api = await apiOf(args);
      const bot = (await withProgress(io, `${doing} bot ${args.bot}`, () =>
        api.json({ method: "POST", path: botPath(args.bot, `/${word}`), signal: io.signal }),
      )) as BotJson;
      if (args.json) await printJson(io, bot);
      else io.stderr.write(`${bot.name} is ${bot.state}${bot.ip === null ? "" : ` at ${bot.ip}`}\n`);
      return 0;
    },
  });
}

const remove = verb<{ bot: string; yes: boolean }>({
  command: "delete <bot>",
  describe: "Delete a bot with all its data",
  examples: [["bot delete demo --yes", "without asking"]],
  options: (yargs) =>
    yargs
      .positional("bot", { type: "string", demandOption: true, describe: "Name or id of the bot" })
      .option("yes", { alias: "y", type: "boolean", default: false, describe: "Do not ask" }),
  run: async (args, io) => {
    const api = await apiOf(args);
    const bot = (await api.json({ path: botPath(args.bot), signal: io.signal })) as BotJson;
    if (!args.yes && !(await confirmed(io, `Delete bot ${bot.name} (${bot.id}) and all its data? [y/N] `))) {
      io.stderr.write("Nothing was deleted\n");
      return 1;
    }
    await withProgress(io, `Deleting bot ${bot.name}`, () =>
      api.json({ method: "DELETE", path: botPath(bot.id), signal: io.signal }),
    );
    io.stderr.write(`Deleted bot ${bot.name}\n`);
    return 0;
  },
});

const limits = verb<BotArgs & LimitArgs>({
  command: "limits <bot>",
  describe: "Change a bot's limits, live",
  examples: [["bot limits demo --memory 4G --cpus 2", "more memory, two cores"]],
  options: (yargs) => limitOptions(botOptions(yargs)),
  run: async (args, io) => {
    const json = limitsOf(args);
    if (json === undefined) {
      throw new Fault("invalid_argument", "Say which limit: --memory, --pids or --cpus");
    }
    const api = await apiOf(args);
    const bot = (await api.json({
      method: "PUT",
      path: botPath(args.bot, "/limits"),
      json,
      signal: io.signal,
    })) as BotJson;
    if (args.json) await printJson(io, bot);
    else await printBot(io, bot);
    return 0;
  },
});

/** Asks on the terminal; without one the answer is no. */
async function confirmed(io: Io, question: string): Promise<boolean> {
  if (!io.stdin.isTTY) {
    throw new Fault("failed_precondition", "Cannot ask for confirmation: stdin is not a terminal", {
      hint: "Add --yes",
    });
  }
  const { createInterface } = await import("node:readline/promises");
  const lines = createInterface({ input: io.stdin, output: io.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(question, { signal: io.signal })).trim());
  } finally {
    lines.close();
  }
}

export const bot = group("bot", "Create, list, show, start, stop and delete bots", [
  create,
  list,
  show,
  change("start", "Starting", "Start a bot"),
  change("stop", "Stopping", "Stop a bot; its data and address stay"),
  remove,
  limits,
]);
