// Runs test files, each in a process of its own that cannot hang the run, and counts what they say.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NODE, ROOT } from "./project.ts";
import type { TestLine } from "./test-reporter.ts";

/** What test files came to. */
export interface Tally {
  passed: number;
  /** `file: test`, as are the skipped ones. */
  readonly failed: string[];
  readonly skipped: string[];
}

export interface TestFilesOptions {
  readonly env: NodeJS.ProcessEnv;
  /** Files at a time. */
  readonly concurrency: number;
  /** Longest silence between two results, and longest run of a file. */
  readonly idleMs: number;
  readonly totalMs: number;
}

/** Runs the files and prints each one's report when it has ended. */
export async function runTestFiles(files: readonly string[], options: TestFilesOptions): Promise<Tally> {
  const tally: Tally = { passed: 0, failed: [], skipped: [] };
  const waiting = [...files];
  const worker = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      await runFile(file, options, tally);
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, worker));
  return tally;
}

async function runFile(file: string, options: TestFilesOptions, tally: Tally): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "memoh-test-lines-"));
  const lines = join(folder, "lines");
  const started = performance.now();
  // Set for the files of `node --test`; here it would change what they print.
  const { NODE_TEST_CONTEXT: _, ...env } = options.env;
  const child = spawn(
    NODE,
    [
      "--test-reporter=spec",
      "--test-reporter-destination=stdout",
      `--test-reporter=${join(ROOT, "build", "test-reporter.ts")}`,
      `--test-reporter-destination=${lines}`,
      join(ROOT, file),
    ],
    // A group of its own: a file that hangs is ended with everything it started.
    { cwd: ROOT, env, stdio: ["ignore", "pipe", "pipe"], detached: true },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-400_000);
    });
  }
  let killed: string | undefined;
  const kill = (why: string) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    killed ??= why;
    process.kill(-child.pid, "SIGKILL");
  };
  const { promise: ended, resolve } = Promise.withResolvers<string | undefined>();
  child.on("exit", (code, signal) => {
    resolve(code === 0 ? undefined : `ended with ${signal ?? code}`);
  });
  child.on("error", (error) => {
    resolve(error.message);
  });
  const watch = setInterval(() => {
    const now = performance.now();
    if (now - started > options.totalMs) kill(`was not done within ${options.totalMs / 1000} s`);
    else {
      void silence(lines, started).then((ms) => {
        if (ms > options.idleMs) {
          kill(`gave no result for ${options.idleMs / 1000} s: a test hangs or left something open`);
        }
      });
    }
  }, 500);
  try {
    const problem = await ended;
    const results = parse(await readFile(lines, "utf8").catch(() => ""));
    const of = (result: TestLine["result"]) => results.filter((line) => line.result === result);
    tally.passed += of("passed").length;
    const failed = of("failed").map((line) => `${file}: ${line.name}`);
    if (killed !== undefined) failed.push(`${file} ${killed}`);
    else if (problem !== undefined && failed.length === 0) failed.push(`${file} ${problem}`);
    else if (results.length === 0) failed.push(`${file} ran no test`);
    tally.failed.push(...failed);
    tally.skipped.push(...of("skipped").map((line) => `${file}: ${line.name}`));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`\n${failed.length === 0 ? "ok" : "FAILED"} ${file} (${seconds} s)\n${brief(output)}`);
  } finally {
    clearInterval(watch);
    await rm(folder, { recursive: true, force: true });
  }
}

/** Milliseconds since the last result, or since the start when there is none. */
async function silence(lines: string, started: number): Promise<number> {
  const last = await stat(lines).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Number.POSITIVE_INFINITY,
  );
  return Math.min(last, performance.now() - started);
}

function parse(text: string): TestLine[] {
  return text
    .split("\n")
    .filter((line) => line.endsWith("}"))
    .map((line) => JSON.parse(line) as TestLine);
}

/** The report without its table of totals: the run prints one of its own. */
function brief(output: string): string {
  return output
    .replaceAll(/^ℹ (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) .*\n?/gm, "")
    .trimEnd();
}
