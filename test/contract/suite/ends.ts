// How commands end: by themselves, by a signal, by time, by whoever started them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { faultOf, until } from "../../support/pieces.ts";
import { type Ground, Listener, ranOf } from "./ground.ts";

export function endTests(ground: Ground): void {
  test("a signal that ends a command is told by name", async () => {
    const { status } = await ground.run({ command: "kill -KILL $$" });
    assert.deepEqual(status, { code: -1, signal: "SIGKILL", timedOut: false });
  });

  test("a signal sent reaches the whole group, and the command may answer it", async () => {
    await using execution = await ground.workspace.exec({
      command:
        "trap 'echo bye; exit 9' TERM; (trap 'echo child; exit' TERM; echo inner; while :; do sleep 0.05; done) & echo outer; wait; wait",
    });
    const listener = new Listener(execution);
    await listener.until(/inner/);
    await listener.until(/outer/);
    await execution.kill("SIGTERM");
    assert.equal((await listener.exit()).code, 9);
    assert.match(listener.text, /bye/);
    assert.match(listener.text, /child/);
  });

  test("a signal that does not exist is refused and hurts nobody", async () => {
    await using execution = await ground.workspace.exec({ command: "cat" });
    await faultOf(execution.kill("SIGNOT"), "invalid_argument");
    await execution.end();
    assert.equal((await ranOf(execution)).status.code, 0);
    await faultOf(execution.kill("SIGTERM"), "failed_precondition");
  });

  test("signals still arrive after the input was ended", async () => {
    await using execution = await ground.workspace.exec({ command: "sleep 1000" });
    await execution.end();
    await execution.kill("SIGKILL");
    assert.equal((await ranOf(execution)).status.signal, "SIGKILL");
  });

  test("a time limit ends everything the command started, and says that it was the time", async () => {
    await using execution = await ground.workspace.exec({
      command: "echo $$; sleep 1000 & echo $!; sleep 1000",
      timeoutMs: 1_000,
    });
    const listener = new Listener(execution);
    const [, shell, child] = await listener.until(/(\d+)\n(\d+)\n/);
    const status = await listener.exit();
    assert.equal(status.timedOut, true);
    assert.notEqual(status.code, 0);
    for (const pid of [shell, child]) {
      await until("it is gone", async () => !(await ground.alive(pid ?? "")));
    }
  });

  test("disposing ends the command and what it left in the background", async () => {
    const execution = await ground.workspace.exec({ command: "sleep 1000 & echo $! $$; wait" });
    const [, child, shell] = await new Listener(execution).until(/(\d+) (\d+)\n/);
    await execution[Symbol.asyncDispose]();
    for (const pid of [shell, child]) {
      await until("it is gone", async () => !(await ground.alive(pid ?? "")));
    }
  });

  test("the caller's signal ends the command, and the caller's reason is what the events throw", async () => {
    const controller = new AbortController();
    await using execution = await ground.workspace.exec({
      command: "echo $$; exec sleep 1000",
      signal: controller.signal,
    });
    const listener = new Listener(execution);
    const [, pid] = await listener.until(/(\d+)\n/);
    controller.abort(new Fault("aborted", "somebody else took over"));
    const fault = await faultOf(listener.exit(), "aborted");
    assert.equal(fault.message, "somebody else took over");
    await until("it is gone", async () => !(await ground.alive(pid ?? "")));
  });

  test("a pipe that a background process holds does not hold the answer", async () => {
    const dir = await ground.fresh();
    const { stdout, status } = await ground.run({
      command: "setsid sleep 1000 & echo $! > pid; echo said; exit 5",
      cwd: dir,
    });
    try {
      assert.equal(stdout.toString(), "said\n");
      assert.equal(status.code, 5);
    } finally {
      await ground.sh("pkill -s $(cat pid) 2>/dev/null || kill $(cat pid) 2>/dev/null || true", dir);
    }
  });

  test("output that nobody reads stops the command, and all of it is there when it is read", async () => {
    const size = 48 << 20;
    await using execution = await ground.workspace.exec({
      command: `echo $$ >&2; exec head -c ${size} /dev/zero`,
    });
    const events = execution.events[Symbol.asyncIterator]();
    let read = 0;
    let pid = "";
    // Streams have no order between them.
    while (pid === "") {
      const next = await events.next();
      assert.ok(next.done !== true && next.value.kind !== "exit");
      if (next.value.kind === "stderr") pid = Buffer.from(next.value.data).toString().trim();
      else read += next.value.data.length;
    }
    const written = async () => Number(/wchar: (\d+)/.exec(await ground.sh(`cat /proc/${pid}/io`))?.[1]);
    let last = -1;
    await until("the command stands still", async () => {
      await sleep(100);
      const now = await written();
      const still = now === last && now > 100_000;
      last = now;
      return still;
    });
    assert.ok(last < size, "it ran to its end although nobody read");
    for await (const event of { [Symbol.asyncIterator]: () => events }) {
      if (event.kind === "stdout") read += event.data.length;
      else assert.deepEqual(event, { kind: "exit", status: { code: 0, signal: undefined, timedOut: false } });
    }
    assert.equal(read, size);
  });

  test("a slow command does not hold up another one", async () => {
    await using slow = await ground.workspace.exec({ command: "cat" });
    assert.equal(await ground.sh("echo quick"), "quick\n");
    await slow.end();
    await ranOf(slow);
  });
}
