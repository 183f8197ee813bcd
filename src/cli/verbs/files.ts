// memoh ls, cat, logs: look into a bot.
import type { Argv } from "yargs";
import type { FileJson } from "../api-types.ts";
import { printJson, printTable, writeOut } from "../io.ts";
import { apiOf, type CommonArgs, jsonOption, verb } from "../verb.ts";
import { botPath } from "./bot.ts";

/** A path of a person: relative ones are below /data, as in commands. */
export function insidePath(path: string): string {
  return path.startsWith("/") ? path : `/data/${path}`;
}

/** `/bots/NAME/container/fs/ACTION?path=…` */
export function fsPath(bot: string, action: string, path: string, more: Record<string, string> = {}): string {
  const query = new URLSearchParams({ path: insidePath(path), ...more });
  return botPath(bot, `/container/fs/${action}?${query.toString()}`);
}

function pathOptions(yargs: Argv<CommonArgs>) {
  return yargs.positional("bot", { type: "string", demandOption: true, describe: "Name or id of the bot" });
}

export const ls = verb<{ bot: string; path: string; recursive: boolean; json: boolean }>({
  command: "ls <bot> [path]",
  describe: "List a directory of a bot",
  examples: [
    ["ls demo", "what is in /data"],
    ["ls demo /etc --json", "for scripts"],
  ],
  options: (yargs) =>
    jsonOption(pathOptions(yargs))
      .positional("path", {
        type: "string",
        default: "/data",
        describe: "Directory; relative is below /data",
      })
      .option("recursive", {
        alias: "R",
        type: "boolean",
        default: false,
        describe: "With everything below",
      }),
  run: async (args, io) => {
    const answer = (await (
      await apiOf(args)
    ).json({
      path: fsPath(args.bot, "list", args.path, args.recursive ? { recursive: "true" } : {}),
      signal: io.signal,
    })) as { entries: FileJson[] };
    if (args.json) await printJson(io, answer);
    else {
      await printTable(
        io,
        ["MODE", "SIZE", "MODIFIED", "NAME"],
        answer.entries.map((entry) => [
          entry.mode,
          String(entry.size),
          entry.modTime,
          `${args.recursive ? entry.path : entry.name}${entry.linkTarget === undefined ? "" : ` -> ${entry.linkTarget}`}`,
        ]),
      );
    }
    return 0;
  },
});

export const cat = verb<{ bot: string; path: string }>({
  command: "cat <bot> <path>",
  describe: "Print a file of a bot",
  examples: [["cat demo notes.md", "/data/notes.md of demo"]],
  options: (yargs) =>
    pathOptions(yargs).positional("path", { type: "string", demandOption: true, describe: "The file" }),
  run: async (args, io) => {
    const data = await (await apiOf(args)).stream({
      path: fsPath(args.bot, "download", args.path),
      signal: io.signal,
    });
    for await (const chunk of data) await writeOut(io.stdout, chunk);
    return 0;
  },
});

export const logs = verb<{ bot: string; tail: number; follow: boolean }>({
  command: "logs <bot>",
  describe: "Print the log of a bot's agent",
  examples: [["logs demo --tail 50 -f", "the last lines, then what comes"]],
  options: (yargs) =>
    pathOptions(yargs)
      .option("tail", { type: "number", default: 0, describe: "Only the last so many lines" })
      .option("follow", { alias: "f", type: "boolean", default: false, describe: "Go on with what comes" }),
  run: async (args, io) => {
    const query = new URLSearchParams({ tail: String(args.tail), follow: String(args.follow) });
    const data = await (await apiOf(args)).stream({
      path: botPath(args.bot, `/container/logs?${query.toString()}`),
      signal: io.signal,
    });
    for await (const chunk of data) await writeOut(io.stdout, chunk);
    return 0;
  },
});
