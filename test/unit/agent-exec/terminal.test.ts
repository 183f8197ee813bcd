// Processes under a terminal: a controlling one, with job control, sizes, ^C, and an end of input that is seen.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { sessionMembers } from "../../../src/lib/session.ts";
import { collect, execRig, readUntil, sessionGone } from "./rig.ts";

const pty = { cols: 91, rows: 33 };

describe("a terminal", { timeout: 60_000 }, () => {
  test("is the command's stdin, stdout, stderr and controlling terminal, of the given size", async () => {
    await using rig = await execRig();
    const { text, stderr, status } = await rig.run({
      command: "tty; stty size; echo err >&2; echo ctty >/dev/tty; echo $TERM; exit 4",
      pty,
    });
    assert.match(text, /^\/dev\/pts\/\d+\r\n33 91\r\nerr\r\nctty\r\nxterm-256color\r\n$/);
    assert.equal(stderr.length, 0);
    assert.deepEqual(status, { code: 4, signal: undefined, timedOut: false });
  });

  test("runs argument vectors with exact arguments, and tells missing programs and directories", async () => {
    await using rig = await execRig();
    assert.equal(
      (await rig.run({ command: ["printf", "<%s>", "a b", "$0", "-c", ""], pty })).text,
      "<a b><$0><-c><>",
    );
    await assert.rejects(rig.run({ command: ["no-such-program"], pty }), { code: "not_found" });
    await assert.rejects(rig.run({ command: "true", cwd: "nope", pty }), { code: "not_found" });
  });

  test("is led by the command itself", async () => {
    await using rig = await execRig();
    const { text, pid } = await rig.run({ command: ["cat", "/proc/self/stat"], pty });
    const [id, , , , group, session] = text.split(" ");
    assert.deepEqual([id, group, session], [String(pid), String(pid), String(pid)]);
  });

  test("turns ^C into SIGINT for the foreground, and the shell goes on", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({
      command: ["bash", "--norc", "-i"],
      env: { PS1: "ready> " },
      pty,
    });
    await readUntil(execution, "ready> ");
    await execution.write(Buffer.from("sleep 30; echo not this\n"));
    await readUntil(execution, "not this\r\n");
    await new Promise((resolve) => setTimeout(resolve, 200));
    await execution.write(Buffer.from("\x03"));
    await readUntil(execution, "ready> ");
    await execution.write(Buffer.from("echo code $?; exit 7\n"));
    const { text, status } = await collect(execution);
    assert.match(text, /code 130/);
    assert.equal(status.code, 7);
  });

  test("has job control", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({
      command: ["bash", "--norc", "-i"],
      env: { PS1: "ready> " },
      pty,
    });
    assert.doesNotMatch(await readUntil(execution, "ready> "), /no job control/);
    await execution.write(Buffer.from("sleep 30 &\njobs; kill %1; fg; exit\n"));
    assert.match((await collect(execution)).text, /Running +sleep 30/);
  });

  test("that changes its size tells the command", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({
      command: "trap 'stty size; exit' WINCH; echo up; sleep 30 & wait",
      pty,
    });
    await readUntil(execution, "up\r\n");
    await execution.resize({ cols: 120, rows: 40 });
    assert.match((await collect(execution)).text, /40 120/);
  });

  test("carries bytes both ways unchanged when raw", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "stty raw -echo; echo up; head -c 256", pty });
    await readUntil(execution, "up\n");
    const all = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    await execution.write(all);
    assert.deepEqual((await collect(execution)).stdout, all);
  });

  test("ends the input of a reader, of an unfinished line, and of a shell that was still starting", async () => {
    await using rig = await execRig();
    assert.match((await rig.run({ command: "stty -echo; cat; echo end", pty }, "a\n")).text, /end\r\n$/);
    assert.match((await rig.run({ command: "cat; echo end", pty }, "half")).text, /half.*end\r\n$/s);
    assert.match((await rig.run({ command: ["bash", "--norc", "-i"], pty }, "echo h''i\n")).text, /hi\r\n/);
    await using execution = await rig.start({ command: "sleep 0.1", pty });
    await execution.end();
    await execution.end();
    await assert.rejects(execution.write(Buffer.from("x")), { code: "failed_precondition" });
    await collect(execution);
  });

  test("nobody reads stops the command", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({
      command: "i=0; while :; do i=$((i+1)); echo $i; echo $i >&9; done 9>count",
      pty,
    });
    await execution.events[Symbol.asyncIterator]().next();
    const { stat } = await import("node:fs/promises");
    const size = async () => (await stat(`${rig.dir}/count`)).size;
    let last = -1;
    for (let now = await size(); now !== last; now = await size()) {
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.ok(last < 1 << 20, `${last} bytes`);
  });

  test("shows all output of a command that ends at once", async () => {
    await using rig = await execRig();
    for (let round = 0; round < 10; round++) {
      const { text } = await rig.run({ command: "seq 1 3000", pty });
      assert.equal(text, Array.from({ length: 3_000 }, (_, index) => `${index + 1}\r\n`).join(""));
    }
  });

  test("that is hung up ends interactive shells at once, and their jobs", async () => {
    await using rig = await execRig({ times: { term: 20_000, drain: 400 } });
    const execution = await rig.start({ command: ["bash", "--norc", "-i"], env: { PS1: "ready> " }, pty });
    await readUntil(execution, "ready> ");
    await execution.write(Buffer.from("sleep 30 &\n"));
    await readUntil(execution, "ready> ");
    await execution[Symbol.asyncDispose]();
    assert.deepEqual(sessionMembers(execution.pid), []);
  });

  test("held by a process of another session does not hold the answer", async () => {
    await using rig = await execRig();
    const { text, status } = await rig.run({ command: "setsid sleep 30 & echo main; exit 2", pty });
    assert.match(text, /main/);
    assert.equal(status.code, 2);
  });

  test("keeps a time limit", async () => {
    await using rig = await execRig();
    const { status, pid } = await rig.run({ command: "while :; do sleep 1; done", pty, timeoutMs: 200 });
    assert.equal(status.timedOut, true);
    await sessionGone(pid);
  });

  test("cannot be resized without one", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "sleep 0.1" });
    await assert.rejects(execution.resize(pty), { code: "failed_precondition" });
    await collect(execution);
  });
});
