// A process far away: what is sent, what is believed, how it ends.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ExecEvent } from "../../../src/core/workspace.ts";
import { ExecOutput_Stream } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { workspaceOver } from "../../../src/remote/provider.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { BOT, fakeAgent } from "../../support/fake-agent.ts";
import { faultOf, until } from "../../support/pieces.ts";
import { EXIT, eventsOf, talk } from "./talk.ts";

test("a command that cannot be started rejects before there is an execution", async () => {
  await using at = await talk({
    // oxlint-disable-next-line require-yield -- it fails before it yields
    async *exec() {
      await Promise.resolve();
      throw new Fault("not_found", "Cannot start: no such directory");
    },
  });
  await faultOf(at.workspace.exec({ command: "x", cwd: "/none" }), "not_found");
});

test("a command without a time limit says so, one with a limit in whole seconds rounded up", async () => {
  const seen: unknown[] = [];
  await using at = await talk({
    async *exec(requests, { accept }) {
      accept();
      for await (const first of requests) {
        seen.push([first.noTimeout, first.timeoutSeconds, first.command, first.argv, first.env, first.pty]);
        break;
      }
      yield { stream: EXIT };
    },
  });
  await eventsOf(await at.workspace.exec({ command: "x" }));
  await eventsOf(await at.workspace.exec({ command: ["x", "y z"], timeoutMs: 1500, env: { A: "b=c" } }));
  await eventsOf(await at.workspace.exec({ command: "x", timeoutMs: 1, pty: { cols: 80, rows: 24 } }));
  assert.deepEqual(seen, [
    [true, 0, "x", [], [], false],
    [false, 2, "", ["x", "y z"], ["A=b=c"], false],
    [false, 1, "x", [], [], true],
  ]);
  await faultOf(at.workspace.exec({ command: "x", env: { "A=B": "c" } }), "invalid_argument");
});

test("stdin, its end, a resize and a signal travel in their order", async () => {
  const seen: unknown[] = [];
  await using at = await talk({
    async *exec(requests, { accept }) {
      accept();
      let first = true;
      for await (const m of requests) {
        if (!first) seen.push([String(Buffer.from(m.stdinData)), m.closeStdin, m.resize?.cols, m.signal]);
        first = false;
        if (m.signal !== "") break;
      }
      yield { stream: EXIT, exitCode: -1, signal: "SIGINT" };
    },
  });
  await using execution = await at.workspace.exec({ command: "x", pty: { cols: 80, rows: 24 } });
  await execution.write(Buffer.from("in"));
  await execution.resize({ cols: 100, rows: 30 });
  await execution.end();
  await faultOf(execution.write(Buffer.from("more")), "failed_precondition");
  await execution.kill("SIGINT");
  const events = await eventsOf(execution);
  assert.deepEqual(events, [{ kind: "exit", status: { code: -1, signal: "SIGINT", timedOut: false } }]);
  assert.deepEqual(seen, [
    ["in", false, undefined, ""],
    ["", false, 100, ""],
    ["", true, undefined, ""],
    ["", false, undefined, "SIGINT"],
  ]);
  await faultOf(execution.write(Buffer.from("late")), "failed_precondition");
  await faultOf(execution.resize({ cols: 0, rows: 1 }), "invalid_argument");
  await faultOf(execution.kill("SIGNOT"), "invalid_argument");
  await faultOf(execution.kill("SIGINT"), "failed_precondition");
});

test("a stream that ends without an exit is an interruption, never exit code 0", async () => {
  await using at = await talk({
    async *exec(_, { accept }) {
      accept();
      yield await Promise.resolve({ stream: ExecOutput_Stream.STDOUT, data: Buffer.from("out") });
    },
  });
  const execution = await at.workspace.exec({ command: "x" });
  const events: ExecEvent[] = [];
  const fault = await faultOf(
    (async () => {
      for await (const event of execution.events) events.push(event);
    })(),
    "unavailable",
  );
  assert.match(fault.message, /interrupted/);
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ["stdout"],
  );
});

test("an agent that dies under a command is an interruption", async () => {
  const agent = await fakeAgent({
    async *exec(_, { accept, signal }) {
      accept();
      yield { data: Buffer.from("out") };
      await sleep(60_000, signal);
    },
  });
  using channel = new RpcChannel({ target: agent.target });
  const execution = await workspaceOver(channel, BOT).exec({ command: "x" });
  const fault = faultOf(
    (async () => {
      for await (const event of execution.events) {
        assert.equal(event.kind, "stdout");
        await agent[Symbol.asyncDispose]();
      }
    })(),
    "unavailable",
  );
  assert.match((await fault).message, /interrupted/);
});

test("there is one exit and nothing after it, whatever the agent goes on to send", async () => {
  await using at = await talk({
    async *exec(_, { accept }) {
      accept();
      yield await Promise.resolve({ stream: EXIT, exitCode: 3 });
      yield { stream: EXIT, exitCode: 0 };
      yield { stream: ExecOutput_Stream.STDOUT, data: Buffer.from("late") };
    },
  });
  const events = await eventsOf(await at.workspace.exec({ command: "x" }));
  assert.deepEqual(events, [{ kind: "exit", status: { code: 3, signal: undefined, timedOut: false } }]);
});

for (const how of ["disposing", "the caller's signal"]) {
  test(`${how} cancels the command at the agent`, async () => {
    let cancelled = false;
    await using at = await talk({
      async *exec(_, { accept, signal }) {
        signal.addEventListener("abort", () => {
          cancelled = true;
        });
        accept();
        yield { data: Buffer.from("out") };
        await sleep(60_000, signal);
      },
    });
    const controller = new AbortController();
    const execution = await at.workspace.exec({ command: "x", signal: controller.signal });
    if (how === "disposing") await execution[Symbol.asyncDispose]();
    else {
      controller.abort(new Fault("cancelled", "enough"));
      await faultOf(eventsOf(execution), "cancelled");
    }
    await until("the agent notices", () => cancelled);
  });
}
