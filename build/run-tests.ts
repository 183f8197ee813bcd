// Verb `test`: generated code is current, both executables build, then every test; the last line counts them.
import { globSync } from "node:fs";
import { join } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";
import { buildExecutables } from "./build.ts";
import { executablePath, type Runtime } from "./executable.ts";
import { generate } from "./gen.ts";
import { ROOT, runVerb, toolEnv } from "./project.ts";

/** What a group of test files came to. */
interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  readonly failures: string[];
  readonly skips: string[];
}

/** Minutes for one file; one that hangs is ended and counts as failed. */
const FILE_MINUTES = 8;

const GROUPS = {
  fast: ["test/*.test.ts", "test/unit/**/*.test.ts", "test/contract/**/*.test.ts"],
  parts: ["test/integration/**/*.test.ts"],
  whole: ["test/e2e/**/*.test.ts"],
} as const;

/** Runs files two at a time, each in a process of its own, and prints every result as it comes. */
async function runFiles(title: string, files: readonly string[], env: NodeJS.ProcessEnv): Promise<Tally> {
  const tally: Tally = { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
  if (files.length === 0) return tally;
  console.log(`\n== ${title}: ${files.length} files`);
  const stream = run({
    cwd: ROOT,
    files: files.map((file) => join(ROOT, file)),
    // Real parts share this machine's two cores; more at a time only makes them wait for each other.
    concurrency: 2,
    timeout: FILE_MINUTES * 60_000,
    env,
  });
  const name = (data: { name: string; file?: string | undefined }) =>
    `${data.file?.replace(`${ROOT}/`, "") ?? ""}: ${data.name}`;
  stream.on("test:pass", (data) => {
    if (data.details.type === "suite") return;
    if (data.skip === undefined && data.todo === undefined) tally.passed += 1;
    else {
      tally.skipped += 1;
      tally.skips.push(name(data));
    }
  });
  stream.on("test:fail", (data) => {
    if (data.details.type === "suite") return;
    tally.failed += 1;
    tally.failures.push(name(data));
  });
  const report = stream.compose(spec);
  for await (const chunk of report) process.stdout.write(chunk);
  return tally;
}

function filesOf(patterns: readonly string[], wanted: readonly string[]): string[] {
  const files = [...new Set(patterns.flatMap((pattern) => globSync(pattern, { cwd: ROOT })))].toSorted();
  return wanted.length === 0 ? files : files.filter((file) => wanted.some((part) => file.includes(part)));
}

/** Runs all, or only the files whose path contains one of the words. */
async function main(words: readonly string[]): Promise<number> {
  const started = performance.now();
  const stale = await generate(true);
  if (stale.length > 0) {
    throw new Error(`Generated code is not current: ${stale.join(", ")}\n  Run \`npm run gen\` and commit`);
  }
  console.log("generated code is current");
  await buildExecutables(["bun", "node"]);

  const tallies = [
    await runFiles("unit and contract", filesOf(GROUPS.fast, words), toolEnv()),
    await runFiles("real parts", filesOf(GROUPS.parts, words), toolEnv()),
  ];
  const whole = filesOf(GROUPS.whole, words);
  for (const runtime of ["bun", "node"] satisfies Runtime[]) {
    const env = { ...toolEnv(), MEMOH_TEST_EXECUTABLE: executablePath(runtime) };
    tallies.push(await runFiles(`the whole program, ${runtime} build`, whole, env));
  }

  const sum = (pick: (tally: Tally) => number) => tallies.reduce((total, tally) => total + pick(tally), 0);
  const failed = sum((tally) => tally.failed);
  for (const failure of tallies.flatMap((tally) => tally.failures)) console.log(`failed: ${failure}`);
  for (const skip of tallies.flatMap((tally) => tally.skips)) console.log(`skipped: ${skip}`);
  const minutes = ((performance.now() - started) / 60_000).toFixed(1);
  console.log(`\nall tests took ${minutes} minutes`);
  const passed = sum((tally) => tally.passed);
  console.log(`${passed} passed, ${failed} failed, ${sum((tally) => tally.skipped)} skipped`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

if (import.meta.main) {
  await runVerb(async () => await main(parseArgs({ allowPositionals: true }).positionals));
}
