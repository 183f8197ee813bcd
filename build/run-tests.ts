// Verb `test`: generated code is current, both executables build, then every test; the last line counts them.
import { globSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildExecutables } from "./build.ts";
import { executablePath, type Runtime } from "./executable.ts";
import { generate } from "./gen.ts";
import { ROOT, runVerb, toolEnv } from "./project.ts";
import { runTestFiles, type Tally } from "./test-files.ts";

const GROUPS = {
  fast: ["test/*.test.ts", "test/unit/**/*.test.ts", "test/contract/**/*.test.ts"],
  parts: ["test/integration/**/*.test.ts"],
  whole: ["test/e2e/**/*.test.ts"],
} as const;

/** Real parts share this machine's two cores; more files at a time only make them wait for each other. */
const LIMITS = { concurrency: 2, idleMs: 6 * 60_000, totalMs: 10 * 60_000 };

async function runGroup(title: string, files: readonly string[], env: NodeJS.ProcessEnv): Promise<Tally> {
  if (files.length > 0) console.log(`\n== ${title}: ${files.length} files`);
  return await runTestFiles(files, { ...LIMITS, env });
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
    await runGroup("unit and contract", filesOf(GROUPS.fast, words), toolEnv()),
    await runGroup("real parts", filesOf(GROUPS.parts, words), toolEnv()),
  ];
  const whole = filesOf(GROUPS.whole, words);
  for (const runtime of ["bun", "node"] satisfies Runtime[]) {
    const env = { ...toolEnv(), MEMOH_TEST_EXECUTABLE: executablePath(runtime) };
    tallies.push(await runGroup(`the whole program, ${runtime} build`, whole, env));
  }

  const failed = tallies.flatMap((tally) => tally.failed);
  const skipped = tallies.flatMap((tally) => tally.skipped);
  const passed = tallies.reduce((total, tally) => total + tally.passed, 0);
  console.log("");
  for (const name of failed) console.log(`failed: ${name}`);
  for (const name of skipped) console.log(`skipped: ${name}`);
  console.log(`all tests took ${((performance.now() - started) / 60_000).toFixed(1)} minutes`);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
  return failed.length === 0 && passed > 0 ? 0 : 1;
}

if (import.meta.main) {
  await runVerb(async () => await main(parseArgs({ allowPositionals: true }).positionals));
}
