// Commands: how they are found and started, what they inherit, and how each way of failing is told.
import assert from "node:assert/strict";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { execRig } from "./rig.ts";

describe("a command", { timeout: 60_000 }, () => {
  test("runs as a shell line or as an argument vector", async () => {
    await using rig = await execRig();
    assert.equal((await rig.run({ command: "echo $((1+2)) 'a  b'" })).text, "3 a  b\n");
    assert.equal(
      (await rig.run({ command: ["printf", "<%s>", "a b", "$HOME", "*", ""] })).text,
      "<a b><$HOME><*><>",
    );
  });

  test("has real pipes as stdin, stdout and stderr, which can be opened by name", async () => {
    await using rig = await execRig();
    const { text, stderr, status } = await rig.run(
      {
        command:
          "readlink /proc/self/fd/0 /proc/$$/fd/1 /proc/$$/fd/2; cat /dev/stdin; echo e >/dev/stderr; echo o >/dev/stdout",
      },
      "in\n",
    );
    assert.match(text, /^pipe:\[\d+\]\npipe:\[\d+\]\npipe:\[\d+\]\nin\no\n$/);
    assert.equal(stderr.toString(), "e\n");
    assert.equal(status.code, 0);
  });

  test("inherits no descriptor of the agent beyond these three", async () => {
    await using rig = await execRig();
    await using other = await rig.start({ command: "cat", pty: { cols: 80, rows: 24 } });
    // Whoever runs the test may hand descriptors down to it; what counts is that nothing of ours is among them.
    const ours = /pipe:|ptmx|pts|socket:|anon_inode|memoh/;
    const inherited = new Set(
      (await rig.run({ command: ["/bin/ls", "-l", "/proc/self/fd"] })).text.match(/pipe:\[\d+\]/g),
    );
    const again = (await rig.run({ command: ["/bin/ls", "-l", "/proc/self/fd"] })).text
      .split("\n")
      .filter((line) => /\d+ -> /.test(line) && !/ [012] -> /.test(line) && ours.test(line))
      .filter((line) => ![...inherited].some((pipe) => line.includes(pipe)));
    assert.deepEqual(again, []);
    await other.kill("SIGKILL");
  });

  test("leads its own session and process group, away from the agent's", async () => {
    await using rig = await execRig();
    const { text, pid } = await rig.run({ command: ["cat", "/proc/self/stat"] });
    const [id, , , , group, session] = text.split(" ");
    assert.deepEqual([id, group, session], [String(pid), String(pid), String(pid)]);
  });

  test("dies of memory before the agent does, with everything it starts, while the agent's own score stays", async () => {
    await using rig = await execRig();
    const before = await readFile("/proc/self/oom_score_adj", "utf8");
    const { text } = await rig.run({
      command: "cat /proc/self/oom_score_adj; (cat /proc/self/oom_score_adj)",
    });
    assert.equal(text, "500\n500\n");
    assert.equal(await readFile("/proc/self/oom_score_adj", "utf8"), before);
  });

  test("starts with default signal actions and an empty mask", async () => {
    await using rig = await execRig();
    const { text } = await rig.run({ command: ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"] });
    assert.match(text, /^SigBlk:\t0+\nSigIgn:\t0+\n$/);
  });
});

describe("the environment of a command", { timeout: 60_000 }, () => {
  test("is the base with what the caller sets over it and what it unsets removed", async () => {
    await using rig = await execRig({ env: { PATH: "/usr/bin:/bin", A: "base", B: "base", C: "base" } });
    const { text } = await rig.run({
      command: ["env"],
      env: { A: "mine", D: "x=y z\nü", E: "" },
      unsetEnv: ["B", "NOPE"],
    });
    assert.deepEqual(text.trimEnd().split("\n").sort(), [
      "A=mine",
      "C=base",
      "D=x=y z",
      "E=",
      "PATH=/usr/bin:/bin",
      "ü",
    ]);
  });

  test("is empty, or exactly what the caller sets, when asked to be clean", async () => {
    await using rig = await execRig();
    assert.equal((await rig.run({ command: ["/usr/bin/env"], cleanEnv: true })).text, "");
    assert.equal((await rig.run({ command: ["env"], cleanEnv: true, env: { X: "1" } })).text, "X=1\n");
    assert.match((await rig.run({ command: "echo ok", cleanEnv: true })).text, /ok/);
  });

  test("decides by its own PATH which program is meant", async () => {
    await using rig = await execRig();
    await writeFile(join(rig.dir, "tool"), "#!/bin/sh\necho mine\n", { mode: 0o755 });
    assert.equal((await rig.run({ command: ["tool"], env: { PATH: `/nope:${rig.dir}` } })).text, "mine\n");
    await assert.rejects(rig.run({ command: ["tool"] }), { code: "not_found" });
  });

  test("refuses NUL bytes in it and in arguments", async () => {
    await using rig = await execRig();
    await assert.rejects(rig.run({ command: "echo a\0b" }), { code: "invalid_argument" });
    await assert.rejects(rig.run({ command: ["echo", "\0"] }), { code: "invalid_argument" });
    await assert.rejects(rig.run({ command: "true", env: { A: "\0" } }), { code: "invalid_argument" });
    await assert.rejects(rig.run({ command: "true", cwd: "a\0" }), { code: "invalid_argument" });
  });
});

describe("the working directory of a command", { timeout: 60_000 }, () => {
  test("is the work directory, below it when relative, anywhere when absolute", async () => {
    await using rig = await execRig();
    await mkdir(join(rig.dir, "a/b"), { recursive: true });
    await symlink("a/b", join(rig.dir, "link"));
    const where = async (cwd?: string | Uint8Array) =>
      (await rig.run({ command: "pwd -P", ...(cwd === undefined ? {} : { cwd }) })).text.trimEnd();
    assert.equal(await where(), rig.dir);
    assert.equal(await where(""), rig.dir);
    assert.equal(await where("a/b"), join(rig.dir, "a/b"));
    assert.equal(await where("link"), join(rig.dir, "a/b"));
    assert.equal(await where("a/.."), rig.dir);
    assert.equal(await where("/usr/bin"), "/usr/bin");
  });

  test("may have a name that is not UTF-8", async () => {
    await using rig = await execRig();
    const name = Buffer.concat([Buffer.from(`${rig.dir}/`), Buffer.from([0x66, 0xff, 0xfe])]);
    await mkdir(name);
    const { stdout } = await rig.run({ command: "pwd -P", cwd: name });
    assert.deepEqual(stdout.subarray(0, -1), name);
  });

  test("is the start of a relative program", async () => {
    await using rig = await execRig();
    await mkdir(join(rig.dir, "bin"));
    await writeFile(join(rig.dir, "bin/tool"), '#!/bin/sh\necho "$0"\n', { mode: 0o755 });
    assert.equal((await rig.run({ command: ["./tool"], cwd: "bin" })).text, `${rig.dir}/bin/tool\n`);
    assert.equal((await rig.run({ command: ["bin/tool"] })).text, `${rig.dir}/bin/tool\n`);
  });

  test("that is missing, or is no directory, is named", async () => {
    await using rig = await execRig();
    await writeFile(join(rig.dir, "file"), "");
    await assert.rejects(rig.run({ command: "true", cwd: "no/such" }), {
      code: "not_found",
      message: "Cannot use no/such as the working directory: no such file or directory",
    });
    await assert.rejects(rig.run({ command: "true", cwd: "file" }), {
      code: "failed_precondition",
      message: "Cannot use file as the working directory: not a directory",
    });
  });
});

describe("a command that cannot be started", { timeout: 60_000 }, () => {
  test("is told as not found, not permitted or wrong, and leaves nothing behind", async () => {
    await using rig = await execRig();
    await writeFile(join(rig.dir, "plain"), "x", { mode: 0o644 });
    await writeFile(join(rig.dir, "bad-interpreter"), "#!/no/such/interpreter\n", { mode: 0o755 });
    const failing: [readonly string[] | string, string, RegExp][] = [
      [["no-such-program"], "not_found", /no-such-program: no such program/],
      [["./no-such-program"], "not_found", /no such program/],
      [["/no/such/dir/x"], "not_found", /no such program/],
      [["./plain"], "permission_denied", /\.\/plain: permission denied/],
      [["/tmp"], "permission_denied", /not a regular file/],
      [["./plain/x"], "not_found", /no such program/],
      [["./bad-interpreter"], "not_found", /interpreter/],
      [["/bin/true", "x".repeat(200_000)], "invalid_argument", /argument list too long/],
      [[], "invalid_argument", /command is required/],
      [[""], "invalid_argument", /command is required/],
      ["", "invalid_argument", /command is required/],
    ];
    for (const [command, code, message] of failing) {
      await assert.rejects(rig.run({ command }), (error) => {
        assert.ok(error instanceof Fault, String(error));
        assert.equal(error.code, code, `${JSON.stringify(command).slice(0, 40)}: ${error.message}`);
        assert.match(error.message, message);
        return true;
      });
    }
    assert.equal(rig.processes.running, 0);
  });

  test("in a shell line is the shell's to tell: 127 and 126", async () => {
    await using rig = await execRig();
    await writeFile(join(rig.dir, "plain"), "x", { mode: 0o644 });
    assert.equal((await rig.run({ command: "no-such-program" })).status.code, 127);
    assert.equal((await rig.run({ command: "./plain" })).status.code, 126);
  });

  test("is refused beyond the limit of processes, and taken again below it", async () => {
    await using rig = await execRig({ limit: 2 });
    await using first = await rig.start({ command: "cat" });
    {
      await using second = await rig.start({ command: "cat" });
      await assert.rejects(rig.start({ command: "true" }), { code: "resource_exhausted" });
      assert.ok(second.pid !== first.pid);
    }
    assert.equal((await rig.run({ command: "echo ok" })).text, "ok\n");
  });

  test("runs a script without #! with the shell", async () => {
    await using rig = await execRig();
    await writeFile(join(rig.dir, "script"), 'echo "plain $1"\n', { mode: 0o755 });
    assert.equal((await rig.run({ command: ["./script", "a"] })).text, "plain a\n");
  });

  test("is not started when its signal has aborted before", async () => {
    await using rig = await execRig();
    await assert.rejects(rig.start({ command: "touch made", signal: AbortSignal.abort() }), {
      code: "cancelled",
    });
    await assert.rejects(readFile(join(rig.dir, "made")), { code: "ENOENT" });
  });
});
