// memoh migrate: up, down, status, version, force.
import type { Argv } from "yargs";
import { loadHostConfig } from "../../config/host-config.ts";
import { createLogger } from "../../lib/log.ts";
import { type Io, printFields, printJson, writeOut } from "../io.ts";
import { withProgress } from "../progress.ts";
import { type CommonArgs, group, jsonOption, verb } from "../verb.ts";

async function migrations(args: CommonArgs, io: Io) {
  const config = await loadHostConfig({ instance: args.instance, configFile: args.config });
  const { migrationsOf } = await import("../../host/compose.ts");
  return await migrationsOf(config, createLogger({ level: "warn", format: "text" }), io.signal);
}

function toOption(yargs: Argv<CommonArgs>, describe: string) {
  return yargs.option("to", { type: "number", describe });
}

async function printSteps(
  io: Io,
  result: {
    readonly from: number;
    readonly to: number;
    readonly steps: readonly {
      readonly name: string;
      readonly version: number;
      readonly direction: string;
      readonly ms: number;
    }[];
  },
): Promise<void> {
  for (const step of result.steps) {
    await writeOut(
      io.stdout,
      `${step.direction} ${String(step.version).padStart(4, "0")}_${step.name} ${step.ms} ms\n`,
    );
  }
  io.stderr.write(`The database is at version ${result.to}\n`);
}

const up = verb<{ to?: number | undefined }>({
  command: "up",
  describe: "Run pending migrations",
  examples: [["migrate up", "to the newest version"]],
  options: (yargs) => toOption(yargs, "Stop at this version"),
  run: async (args, io) => {
    const runner = await migrations(args, io);
    await printSteps(io, await withProgress(io, "Migrating", () => runner.up(args.to)));
    return 0;
  },
});

const down = verb<{ to?: number | undefined }>({
  command: "down",
  describe: "Undo the last migration, or all above --to",
  examples: [["migrate down --to 22", "back to version 22"]],
  options: (yargs) => toOption(yargs, "Undo everything above this version"),
  run: async (args, io) => {
    const runner = await migrations(args, io);
    await printSteps(io, await withProgress(io, "Migrating", () => runner.down(args.to)));
    return 0;
  },
});

const status = verb<{ json: boolean }>({
  command: "status",
  describe: "Show which migrations are applied",
  examples: [["migrate status --json", "for scripts"]],
  options: (yargs) => jsonOption(yargs),
  run: async (args, io) => {
    const runner = await migrations(args, io);
    const state = await runner.state();
    if (args.json) await printJson(io, state);
    else {
      await printFields(io, [
        ["version", String(state.version)],
        ["newest", String(state.latest)],
        ["pending", state.version === state.latest ? "none" : "run memoh migrate up"],
      ]);
    }
    return 0;
  },
});

const version = verb<object>({
  command: "version",
  describe: "Print the version of the database",
  examples: [["migrate version", "a number"]],
  run: async (args, io) => {
    const runner = await migrations(args, io);
    const state = await runner.state();
    await writeOut(io.stdout, `${state.version}\n`);
    return 0;
  },
});

const force = verb<{ version: number }>({
  command: "force <version>",
  describe: "Say which version the database is at, without running anything",
  examples: [["migrate force 22", "after mending it by hand"]],
  options: (yargs) =>
    yargs.positional("version", { type: "number", demandOption: true, describe: "The version it is at" }),
  run: async (args, io) => {
    const runner = await migrations(args, io);
    const state = await runner.force(args.version);
    io.stderr.write(`The database is taken to be at version ${state.version}\n`);
    return 0;
  },
});

export const migrate = group("migrate", "Move the database between versions", [
  up,
  down,
  status,
  version,
  force,
]);
