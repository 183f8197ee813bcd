// The end of processes: by themselves, by signal, by time, by their owner; whatever they try, nothing is left.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sessionMembers } from "../../../src/lib/session.ts";
import { collect, execRig, FIXTURES, readUntil, sessionGone, until } from "./rig.ts";

describe("a process that ends by itself", { timeout: 60_000 }, () => {
  test("tells its exit code", async () => {
    await using rig = await execRig();
    for (const code of [0, 1, 42, 255]) {
      const { status } = await rig.run({ command: `exit ${code}` });
      assert.deepEqual(status, { code, signal: undefined, timedOut: false });
    }
  });

  test("by a signal tells its name and -1", async () => {
    await using rig = await execRig();
    for (const signal of ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGUSR1", "SIGPIPE", "SIGSTKFLT"] as const) {
      const { status } = await rig.run({ command: `kill -${constants.signals[signal]} $$; sleep 5` });
      assert.deepEqual(status, { code: -1, signal, timedOut: false });
    }
  });

  test("does not wait for background jobs that closed its pipes, and lets them go on", async () => {
    await using rig = await execRig();
    const { text, pid } = await rig.run({
      command: "(sleep 0.3; echo late > late) >/dev/null 2>&1 & echo main",
    });
    assert.equal(text, "main\n");
    assert.equal(rig.processes.running, 0);
    await sessionGone(pid);
    assert.equal(await readFile(join(rig.dir, "late"), "utf8"), "late\n");
  });

  test("is answered although a process of another session holds its pipes", async () => {
    await using rig = await execRig();
    const { text, stderr } = await rig.run({
      command: "setsid sh -c 'echo $$; sleep 30' & echo err >&2; sleep 0.1",
    });
    assert.equal(stderr.toString(), "err\n");
    // It is on its own and lives on.
    process.kill(Number(text), "SIGKILL");
  });

  test("whose pipes are flooded by another session is answered all the same", async () => {
    await using rig = await execRig();
    const { text, status } = await rig.run({ command: "setsid yes & echo $!; sleep 0.1; exit 3" });
    assert.equal(status.code, 3);
    // Our ends are closed now, so it got SIGPIPE.
    const pid = Number(/\d+/.exec(text)?.[0]);
    await until(async () => !(await exists(pid)));
  });
});

async function exists(pid: number): Promise<boolean> {
  try {
    return !(await readFile(`/proc/${pid}/stat`, "latin1")).includes(") Z ");
  } catch {
    return false;
  }
}

describe("a time limit", { timeout: 60_000 }, () => {
  test("ends the process with its children and says so", async () => {
    await using rig = await execRig();
    const { text, status, pid } = await rig.run({
      command: "sleep 30 & sleep 30 | cat & echo up; wait",
      timeoutMs: 150,
    });
    assert.equal(text, "up\n");
    assert.deepEqual(status, { code: -1, signal: "SIGTERM", timedOut: true });
    await sessionGone(pid);
  });

  test("is not mistaken for success when TERM is turned into exit 0", async () => {
    await using rig = await execRig();
    const { text, status } = await rig.run({
      command: "trap 'echo bye; exit 0' TERM; sleep 30 & wait",
      timeoutMs: 150,
    });
    assert.equal(text, "bye\n");
    assert.deepEqual(status, { code: -1, signal: undefined, timedOut: true });
  });

  test("ends what ignores TERM with KILL", async () => {
    await using rig = await execRig();
    const { status, pid } = await rig.run({
      command: "trap '' TERM; while :; do sleep 1; done",
      timeoutMs: 100,
    });
    assert.deepEqual(status, { code: -1, signal: "SIGKILL", timedOut: true });
    await sessionGone(pid);
  });

  test("sees to the end of children that ignore TERM after the answer has gone out", async () => {
    await using rig = await execRig({ times: { term: 600, drain: 50 } });
    const { status, pid } = await rig.run({
      command: "sh -c 'trap \"\" TERM; while :; do sleep 1; done' >/dev/null 2>&1 & wait",
      timeoutMs: 100,
    });
    assert.equal(status.timedOut, true);
    assert.ok(sessionMembers(pid).length > 0, "the child went with TERM");
    assert.equal(rig.processes.running, 1);
    await sessionGone(pid);
    await until(() => rig.processes.running === 0);
  });

  test("does not touch a process that ends before it", async () => {
    await using rig = await execRig();
    const { status } = await rig.run({ command: "exit 5", timeoutMs: 30_000 });
    assert.deepEqual(status, { code: 5, signal: undefined, timedOut: false });
  });

  test("longer than any timer does not fire at once", async () => {
    await using rig = await execRig();
    const { status } = await rig.run({ command: "sleep 0.1", timeoutMs: 2_147_483_647_000 });
    assert.deepEqual(status, { code: 0, signal: undefined, timedOut: false });
  });
});

describe("a signal by name", { timeout: 60_000 }, () => {
  test("reaches the whole process group", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({
      command:
        "trap 'echo outer; exit 1' INT; sh -c 'trap \"echo inner; exit\" INT; echo up; sleep 30 & wait'; wait",
    });
    await readUntil(execution, "up\n");
    await execution.kill("SIGINT");
    const { text, status } = await collect(execution);
    assert.match(text, /inner/);
    assert.match(text, /outer/);
    assert.equal(status.code, 1);
  });

  test("that does not exist is refused, and so is any after the end", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "sleep 0.1" });
    for (const name of ["SIGNOPE", "9", "", "constructor", "INT"]) {
      await assert.rejects(execution.kill(name), { code: "invalid_argument" });
    }
    await collect(execution);
    await assert.rejects(execution.kill("SIGTERM"), { code: "failed_precondition" });
  });

  test("stops and continues", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "echo up; cat" });
    await readUntil(execution, "up\n");
    await execution.kill("SIGSTOP");
    await execution.kill("SIGCONT");
    await execution.end();
    assert.equal((await collect(execution)).status.code, 0);
  });
});

describe("the owner's end", { timeout: 60_000 }, () => {
  test("by disposing leaves nothing of the session, whatever it tries", async () => {
    const commands = [
      "echo started; sleep 30",
      "echo started; sleep 30 & sleep 30 & wait",
      "trap '' TERM HUP INT; echo started; while :; do sleep 1; done",
      "(trap '' TERM; echo started; while :; do sleep 1; done) & exit 0",
      "echo started; yes",
      "kill -STOP $$ & echo started; sleep 30",
      `sh ${FIXTURES}/fork-burst.sh`,
    ];
    await using rig = await execRig();
    await Promise.all(
      commands.map(async (command) => {
        const execution = await rig.start({ command });
        await readUntil(execution, "started\n");
        await execution[Symbol.asyncDispose]();
        assert.deepEqual(sessionMembers(execution.pid), [], command);
      }),
    );
    assert.equal(rig.processes.running, 0);
  });

  test("by the signal rejects the events with its reason and leaves nothing", async () => {
    await using rig = await execRig();
    const stop = new AbortController();
    await using execution = await rig.start({ command: "echo up; sleep 30 & wait", signal: stop.signal });
    await readUntil(execution, "up\n");
    stop.abort(new Fault("unavailable", "the client went"));
    await assert.rejects(collect(execution), { code: "unavailable", message: "the client went" });
    await sessionGone(execution.pid);
  });

  test("in the middle of output nobody reads leaves nothing", async () => {
    await using rig = await execRig();
    const execution = await rig.start({ command: "yes" });
    await execution.events[Symbol.asyncIterator]().next();
    await execution[Symbol.asyncDispose]();
    await execution[Symbol.asyncDispose]();
    assert.deepEqual(sessionMembers(execution.pid), []);
  });

  test("while the pipes are drained ends what the session left behind", async () => {
    await using rig = await execRig({ times: { term: 400, drain: 20_000 } });
    const execution = await rig.start({ command: "sleep 30 & echo up" });
    await readUntil(execution, "up\n");
    await execution[Symbol.asyncDispose]();
    assert.deepEqual(sessionMembers(execution.pid), []);
  });

  test("of all at once ends running processes and earlier background jobs, and refuses new ones", async () => {
    await using rig = await execRig();
    const background = await rig.run({ command: "sleep 30 >/dev/null 2>&1 & echo up" });
    const running = await rig.start({ command: "trap '' TERM; echo up; while :; do sleep 1; done" });
    await readUntil(running, "up\n");
    assert.ok(sessionMembers(background.pid).length > 0);
    await rig.processes.close(100);
    assert.deepEqual(sessionMembers(background.pid), []);
    assert.deepEqual(sessionMembers(running.pid), []);
    await assert.rejects(collect(running), { code: "unavailable" });
    await assert.rejects(rig.start({ command: "true" }), { code: "unavailable" });
  });
});
