// What a verb is: its words, its options, and the function that runs it.
import type { ArgumentsCamelCase, Argv } from "yargs";
import { loadHostConfig } from "../config/host-config.ts";
import { ApiClient } from "../http/client.ts";
import type { Io } from "./io.ts";

/** Options every verb has. */
export interface CommonArgs {
  readonly instance?: string | undefined;
  readonly config?: string | undefined;
}

/** A verb before it is bound to a terminal. */
export interface Verb<Args extends object> {
  /** yargs's form: `show <bot>`. */
  readonly command: string;
  readonly describe: string;
  readonly examples: readonly (readonly [command: string, what: string])[];
  readonly options?: (yargs: Argv<CommonArgs>) => Argv<CommonArgs & Args>;
  /** @returns the exit status */
  readonly run: (args: ArgumentsCamelCase<CommonArgs & Args>, io: Io) => Promise<number>;
}

/** Where the status of the verb that ran is put. */
export interface Outcome {
  status: number;
}

/** Adds a verb to a parser. */
export interface Bind {
  readonly word: string;
  (yargs: Argv<CommonArgs>, io: Io, outcome: Outcome): Argv<CommonArgs>;
}

/** A verb with its options, its examples, and its result put into the outcome. */
export function verb<Args extends object>(definition: Verb<Args>): Bind {
  const bind = (yargs: Argv<CommonArgs>, io: Io, outcome: Outcome) =>
    yargs.command<CommonArgs & Args>(
      definition.command,
      definition.describe,
      (sub) => {
        const built = definition.options?.(sub) ?? (sub as Argv<CommonArgs & Args>);
        return built.example(definition.examples.map(([command, what]) => [`memoh ${command}`, what]));
      },
      async (args) => {
        outcome.status = await definition.run(args, io);
      },
    );
  return Object.assign(bind, { word: wordOf(definition.command) });
}

/** A word that only leads to further verbs. */
export function group(command: string, describe: string, verbs: readonly Bind[]): Bind {
  const bind = (yargs: Argv<CommonArgs>, io: Io, outcome: Outcome) =>
    yargs.command(command, describe, (sub) => {
      for (const each of verbs) each(sub, io, outcome);
      return sub.demandCommand(
        1,
        `Say what to do with ${command}: ${verbs.map((each) => each.word).join(", ")}`,
      );
    });
  return Object.assign(bind, { word: command, verbs: verbs.map((each) => each.word) });
}

function wordOf(command: string): string {
  return command.split(" ")[0] ?? command;
}

/** The client of the instance a command means. */
export async function apiOf(args: CommonArgs): Promise<ApiClient> {
  const config = await loadHostConfig({ instance: args.instance, configFile: args.config });
  return new ApiClient(config.socketPath);
}

/** `--json` */
export function jsonOption<T>(yargs: Argv<T>) {
  return yargs.option("json", { type: "boolean", default: false, describe: "Print JSON" });
}
