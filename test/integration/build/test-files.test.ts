// The test runner itself: whatever a test file does, it is counted right and the run goes on.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, test } from "node:test";
import { ROOT } from "../../../build/project.ts";
import { runTestFiles } from "../../../build/test-files.ts";

const folder = mkdtempSync(join(tmpdir(), "memoh-runner-"));
after(() => {
  rmSync(folder, { recursive: true });
});

const FILES = {
  good: 'test("a", () => {}); describe("s", () => { test("b", () => {}); });',
  bad: 'test("c", () => { throw new Error("x"); }); test("d", () => {});',
  skips: 'test("e", { skip: true }, () => {}); test("f", { todo: true }, () => {});',
  crashes: 'test("g", () => {}); throw new Error("at the top");',
  exits: 'test("h", () => { process.exit(0); });',
  hangs: 'test("i", async () => { setInterval(() => {}, 1000); await new Promise(() => {}); });',
  leaks: 'test("j", () => { setInterval(() => {}, 1000); });',
  empty: "",
} as const;

function write(name: keyof typeof FILES): string {
  const path = join(folder, `${name}.test.mjs`);
  writeFileSync(path, `import { describe, test } from "node:test";\n${FILES[name]}\n`);
  return relative(ROOT, path);
}

test("results are counted by test, and a file that crashes, exits, hangs, leaks or is empty has failed", async (t) => {
  t.mock.method(console, "log", () => undefined);
  const files = Object.keys(FILES).map((name) => write(name as keyof typeof FILES));
  const tally = await runTestFiles(files, {
    env: process.env,
    concurrency: 4,
    idleMs: 3_000,
    totalMs: 60_000,
  });
  const short = (names: readonly string[]) =>
    names.map((name) => name.replace(/^.*\/(\w+)\.test\.mjs/, "$1"));
  assert.deepEqual(short(tally.failed).toSorted(), [
    "bad: c",
    "crashes ended with 7",
    "empty ran no test",
    "exits ran no test",
    "hangs gave no result for 3 s: a test hangs or left something open",
    "leaks gave no result for 3 s: a test hangs or left something open",
  ]);
  assert.deepEqual(short(tally.skipped).toSorted(), ["skips: e", "skips: f"]);
  // a, b, d and j; what g came to is lost with its file.
  assert.equal(tally.passed, 4);
});

test("a file that keeps giving results for ever is ended at its limit", async (t) => {
  t.mock.method(console, "log", () => undefined);
  const path = join(folder, "endless.test.mjs");
  writeFileSync(
    path,
    'import { test } from "node:test"; for (;;) await test("again", () => new Promise((r) => setTimeout(r, 50)));',
  );
  const tally = await runTestFiles([relative(ROOT, path)], {
    env: process.env,
    concurrency: 1,
    idleMs: 60_000,
    totalMs: 2_000,
  });
  assert.match(tally.failed.join(), /endless\.test\.mjs was not done within 2 s$/);
});
