// What commands are given: text, arguments, environment, directory, input, a terminal.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { faultOf } from "../../support/pieces.ts";
import { type Ground, Listener, ranOf } from "./ground.ts";

export function execTests(ground: Ground): void {
  test("a shell line gives its output apart and its exit code", async () => {
    const { stdout, stderr, status } = await ground.run({ command: "echo out; echo err >&2; exit 7" });
    assert.deepEqual([stdout.toString(), stderr.toString()], ["out\n", "err\n"]);
    assert.deepEqual(status, { code: 7, signal: undefined, timedOut: false });
  });

  test("arguments arrive as they are, with no shell between", async () => {
    const args = ["a b", "$HOME", "'\"`\\", "new\nline", "*", "", "ünï"];
    const { stdout } = await ground.run({ command: ["printf", "%s|", ...args] });
    assert.equal(stdout.toString(), `${args.join("|")}|`);
  });

  test("the environment is set over, cleaned and thinned out as asked", async () => {
    const show = 'printf "%s" "${A-none},${B-none},${HOME+home}"';
    const run = async (spec: { env?: Record<string, string>; cleanEnv?: boolean; unsetEnv?: string[] }) =>
      (await ground.run({ command: show, ...spec })).stdout.toString();
    assert.equal(await run({ env: { A: "x=y z", B: "" } }), "x=y z,,home");
    assert.equal(await run({ env: { A: "1" }, cleanEnv: true }), "1,none,");
    assert.equal(await run({ env: { A: "1", B: "2" }, unsetEnv: ["A", "HOME"] }), "none,2,");
  });

  test("the directory is absolute, or below the one where commands run", async () => {
    const dir = await ground.fresh();
    await ground.workspace.mkdir(`${dir}/sub`);
    assert.equal(await ground.sh("pwd -P", `${dir}/sub`), await ground.sh(`cd ${dir}/sub; pwd -P`));
    assert.equal(await ground.sh("pwd", ""), await ground.sh("pwd"));
  });

  test("what cannot be started is an error before there is a process", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/plain`, "x");
    const w = ground.workspace;
    await faultOf(w.exec({ command: "true", cwd: `${dir}/none` }), "not_found");
    await faultOf(w.exec({ command: "true", cwd: `${dir}/plain` }), "failed_precondition");
    await faultOf(w.exec({ command: ["no-such-program-anywhere"] }), "not_found");
    await faultOf(w.exec({ command: [`${dir}/plain`] }), "permission_denied");
    await faultOf(w.exec({ command: "" }), "invalid_argument");
    await faultOf(w.exec({ command: [] }), "invalid_argument");
    await faultOf(w.exec({ command: "a\0b" }), "invalid_argument");
  });

  test("a shell says itself what it cannot find", async () => {
    const { stderr, status } = await ground.run({ command: "no-such-program-anywhere" });
    assert.equal(status.code, 127);
    assert.match(stderr.toString(), /not found/);
  });

  test("input arrives and ends when it is ended", async () => {
    await using execution = await ground.workspace.exec({ command: "cat; echo done" });
    await execution.write(Buffer.from("one "));
    await execution.write(Buffer.from("two "));
    await execution.end();
    await execution.end();
    const { stdout, status } = await ranOf(execution);
    assert.equal(stdout.toString(), "one two done\n");
    assert.equal(status.code, 0);
  });

  test("input after its end is refused", async () => {
    await using execution = await ground.workspace.exec({ command: "cat" });
    await execution.end();
    await faultOf(execution.write(Buffer.from("late")), "failed_precondition");
    await ranOf(execution);
    await faultOf(execution.write(Buffer.from("later")), "failed_precondition");
  });

  test("megabytes go in and come out unchanged", async () => {
    const content = createHash("sha512").update("x").digest();
    const input = Buffer.alloc(3 << 20, content);
    await using execution = await ground.workspace.exec({ command: "cat" });
    const feeding = (async () => {
      for (let at = 0; at < input.length; at += 700_000)
        await execution.write(input.subarray(at, at + 700_000));
      await execution.end();
    })();
    const { stdout } = await ranOf(execution);
    await feeding;
    assert.ok(stdout.equals(input));
  });

  test("a command that does not read its input ends all the same", async () => {
    await using execution = await ground.workspace.exec({ command: "exec <&-; sleep 0.1; exit 3" });
    try {
      for (let i = 0; i < 20; i++) await execution.write(Buffer.alloc(100_000));
    } catch (error) {
      assert.match(String(error), /stdin is closed|has ended/);
    }
    assert.equal((await ranOf(execution)).status.code, 3);
  });

  test("output is bytes and none of it is lost, whatever the size", async () => {
    const dir = await ground.fresh();
    await ground.sh("head -c 5000000 /dev/urandom > f", dir);
    const sum = (await ground.sh("sha256sum < f", dir)).slice(0, 64);
    const { stdout } = await ground.run({ command: "cat f", cwd: dir });
    assert.equal(createHash("sha256").update(stdout).digest("hex"), sum);
  });

  test("the last words of many short commands are never lost", async () => {
    const codes = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const { stdout, stderr, status } = await ground.run({
          command: `seq 1 300; echo last >&2; exit ${i}`,
        });
        assert.ok(stdout.toString().endsWith("299\n300\n"));
        assert.equal(stderr.toString(), "last\n");
        return status.code;
      }),
    );
    assert.deepEqual(
      codes,
      Array.from({ length: 20 }, (_, i) => i),
    );
  });

  test("the standard streams are real files", async () => {
    const { stdout, stderr } = await ground.run({
      command: "echo a > /dev/stdout; echo b > /dev/stderr; test -t 0 || echo pipe",
    });
    assert.deepEqual([stdout.toString(), stderr.toString()], ["a\npipe\n", "b\n"]);
  });

  test("a terminal is one: its size, its resize, both streams in one", async () => {
    await using execution = await ground.workspace.exec({
      command: `trap 'stty size; exit 0' WINCH; test -t 0 && test -t 1 && stty size; echo err >&2; while :; do sleep 0.05; done`,
      pty: { cols: 91, rows: 33 },
    });
    const listener = new Listener(execution);
    await listener.until(/33 91\r?\nerr/);
    await execution.resize({ cols: 120, rows: 40 });
    await listener.until(/40 120/);
    assert.equal((await listener.exit()).code, 0);
  });

  test("a terminal takes keys: an interrupt reaches what runs in front", async () => {
    await using execution = await ground.workspace.exec({
      command: "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done",
      pty: { cols: 80, rows: 24 },
    });
    const listener = new Listener(execution);
    await listener.until(/ready/);
    await execution.write(Buffer.from([3]));
    await listener.until(/caught/);
    assert.equal((await listener.exit()).code, 4);
  });

  test("a command without a terminal has no size to change", async () => {
    await using execution = await ground.workspace.exec({ command: "sleep 1000" });
    await faultOf(execution.resize({ cols: 80, rows: 24 }), "failed_precondition");
  });
}
