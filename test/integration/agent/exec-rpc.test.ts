// The Exec rpc with everything memoh added, over a socket: what comes through, and what is left when a client goes.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Metadata } from "@grpc/grpc-js";
import { processHandlers } from "../../../src/agent/process-handlers.ts";
import type { ExecSpec } from "../../../src/core/workspace.ts";
import {
  ContainerService,
  ExecInputSchema,
  type ExecOutput,
  ExecOutput_Stream,
} from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { type TestAgent, testAgent } from "../../support/agent.ts";

type Input = MessageInitShape<typeof ExecInputSchema>;

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Sends the messages, half-closes, and reads everything. */
async function exec(
  agent: TestAgent,
  ...inputs: Input[]
): Promise<{ out: string; exit: ExecOutput | undefined }> {
  await using call = agent.client.exec();
  for (const input of inputs) await call.write(input);
  call.end();
  let out = "";
  let exit: ExecOutput | undefined;
  for await (const message of call.responses) {
    if (message.stream === ExecOutput_Stream.EXIT) exit = message;
    else out += Buffer.from(message.data).toString();
  }
  return { out, exit };
}

/** Living processes with this text on their command line. */
function alive(mark: string): number {
  let count = 0;
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(mark)) count++;
    } catch {
      continue; // It ended meanwhile.
    }
  }
  return count;
}

describe("the Exec rpc", { timeout: 60_000 }, () => {
  test("runs argument vectors with a clean environment and unset names", async () => {
    await using agent = await testAgent({ commandEnv: { A: "1", B: "2" } });
    assert.equal((await exec(agent, { argv: ["/usr/bin/env"], cleanEnv: true, env: ["X=1"] })).out, "X=1\n");
    const { out } = await exec(agent, { argv: ["env"], unsetEnv: ["A"] });
    assert.match(out, /^B=2$/m);
    assert.doesNotMatch(out, /^A=/m);
  });

  test("gives commands the environment the host named and nothing of the agent's own", async () => {
    process.env["MEMOH_TEST_SECRET"] = "x";
    await using agent = await testAgent({ commandEnv: { IMAGE: "yes" } });
    const { out } = await exec(agent, { argv: ["env"] });
    assert.match(out, /^IMAGE=yes$/m);
    assert.deepEqual(
      new Set(out.trimEnd().replaceAll(/=.*/g, "").split("\n")),
      new Set(["HOME", "IMAGE", "PATH"]),
    );
  });

  test("tells a timeout and a signal in the EXIT", async () => {
    await using agent = await testAgent();
    const late = await exec(agent, { command: "sleep 30", timeoutSeconds: 1 });
    assert.deepEqual([late.exit?.exitCode, late.exit?.timedOut, late.exit?.signal], [-1, true, "SIGTERM"]);
    const killed = await exec(agent, { command: "kill -9 $$" });
    assert.deepEqual(
      [killed.exit?.exitCode, killed.exit?.timedOut, killed.exit?.signal],
      [-1, false, "SIGKILL"],
    );
  });

  test("takes the original's 30 seconds, the caller's, or none", async () => {
    const specs: ExecSpec[] = [];
    const { exec: handler } = processHandlers({
      exec: (spec) => {
        specs.push(spec);
        return Promise.reject(new Fault("unavailable", "enough"));
      },
    });
    const inputs: Input[] = [
      { timeoutSeconds: 0 },
      { timeoutSeconds: -5 },
      { timeoutSeconds: 7 },
      { timeoutSeconds: 7, noTimeout: true },
    ];
    for (const input of inputs) {
      const requests = (async function* () {
        await Promise.resolve();
        yield create(ExecInputSchema, { command: "x", ...input });
      })();
      const context = { signal: new AbortController().signal, accept: () => undefined };
      await assert.rejects(
        async () => {
          for await (const _ of handler(requests, { ...context, peer: "", metadata: new Metadata() }));
        },
        { code: "unavailable" },
      );
    }
    assert.deepEqual(
      specs.map((spec) => spec.timeoutMs),
      [30_000, 30_000, 7_000, undefined],
    );
  });

  test("runs under a terminal that later messages resize and signal", async () => {
    await using agent = await testAgent();
    await using call = agent.client.exec();
    await call.write({
      command: "trap 'stty size' WINCH; trap 'echo int; exit 5' INT; stty size; while :; do sleep 0.05; done",
      pty: true,
      resize: { cols: 90, rows: 30 },
      noTimeout: true,
    });
    let out = "";
    let exit: ExecOutput | undefined;
    for await (const message of call.responses) {
      if (message.stream === ExecOutput_Stream.EXIT) exit = message;
      out += Buffer.from(message.data).toString();
      if (out === "30 90\r\n") await call.write({ resize: { cols: 100, rows: 50 } });
      if (out === "30 90\r\n50 100\r\n") await call.write({ signal: "SIGINT" });
    }
    assert.equal(out, "30 90\r\n50 100\r\nint\r\n");
    assert.equal(exit?.exitCode, 5);
  });

  test("ends stdin when told while the stream stays open for signals", async () => {
    await using agent = await testAgent();
    await using call = agent.client.exec();
    await call.write({
      command:
        "cat; echo eof; trap 'exit 9' USR1; echo ready; exec 2>/dev/null; while :; do sleep 0.05; done",
    });
    await call.write({ stdinData: Buffer.from("x"), closeStdin: true });
    let out = "";
    let exit: ExecOutput | undefined;
    for await (const message of call.responses) {
      if (message.stream === ExecOutput_Stream.EXIT) exit = message;
      out += Buffer.from(message.data).toString();
      if (out.endsWith("ready\n")) await call.write({ signal: "SIGUSR1" });
    }
    assert.equal(out, "xeof\nready\n");
    assert.equal(exit?.exitCode, 9);
  });

  test("accepts the call when the process has started, before it says anything", async () => {
    await using agent = await testAgent();
    await using call = agent.client.exec();
    await call.write({ argv: ["sleep", "30"] });
    await call.responses.accepted;
    assert.equal((await agent.client.health({})).processes, 1);
    await using missing = agent.client.exec();
    await missing.write({ argv: ["no-such-program"] });
    await assert.rejects(missing.responses.accepted, { code: "not_found" });
  });

  test("fails on an unknown signal or a bad environment, and ends the process", async () => {
    await using agent = await testAgent();
    await assert.rejects(exec(agent, { command: "sleep 30" }, { signal: "SIGNOPE" }), {
      code: "invalid_argument",
      message: /SIGNOPE/,
    });
    await assert.rejects(exec(agent, { command: "true", env: ["NOEQUALS"] }), { code: "invalid_argument" });
    await assert.rejects(exec(agent, { command: "true", env: ["=x"] }), { code: "invalid_argument" });
    await assert.rejects(exec(agent, { command: "true" }, { resize: { cols: 1, rows: 1 } }), {
      code: "failed_precondition",
    });
    await until(async () => (await agent.client.health({})).processes === 0);
  });

  test("goes on when input comes for a command that does not want it", async () => {
    await using agent = await testAgent();
    const { out, exit } = await exec(
      agent,
      { command: "exec <&-; sleep 0.1; echo done" },
      ...Array.from({ length: 20 }, () => ({ stdinData: Buffer.alloc(64 << 10) })),
    );
    assert.deepEqual([out, exit?.exitCode], ["done\n", 0]);
  });

  test("runs 100 commands, eight at a time, whose input ends at once", async () => {
    await using agent = await testAgent();
    let next = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let index = next++; index < 100; index = next++) {
          const { out, exit } = await exec(agent, { argv: ["echo", String(index)] });
          assert.deepEqual([out, exit?.exitCode], [`${index}\n`, 0]);
        }
      }),
    );
  });
});

describe("a client that goes away", { timeout: 60_000 }, () => {
  const mark = (name: string) => `MARK_${process.pid}_${name}`;
  /** A child, a grandchild, and one that floods. */
  const line = (name: string) => `: ${mark(name)}; (sleep 60; : ${mark(name)}) & yes`;

  test("by cancelling leaves nothing running", async () => {
    await using agent = await testAgent();
    const stop = new AbortController();
    const call = agent.client.exec({ signal: stop.signal });
    await call.write({ command: line("cancel"), noTimeout: true });
    await call.responses[Symbol.asyncIterator]().next();
    assert.ok(alive(mark("cancel")) >= 2);
    stop.abort();
    await until(() => alive(mark("cancel")) === 0);
    await until(async () => (await agent.client.health({})).processes === 0);
  });

  test("by its deadline leaves nothing running", async () => {
    await using agent = await testAgent();
    const call = agent.client.exec({ timeoutMs: 300 });
    await call.write({ command: line("deadline"), noTimeout: true });
    await assert.rejects(
      async () => {
        for await (const _ of call.responses);
      },
      { code: "deadline_exceeded" },
    );
    await until(() => alive(mark("deadline")) === 0);
  });

  test("with its whole connection leaves nothing running", async () => {
    await using agent = await testAgent();
    // A relay, so that the connection can be cut without a word.
    const { createServer } = await import("node:net");
    const cuts: (() => void)[] = [];
    const relay = createServer((near) => {
      const far = connect(agent.target.slice("unix:".length));
      near.pipe(far).pipe(near);
      const cut = () => {
        near.destroy();
        far.destroy();
      };
      near.on("error", cut);
      far.on("error", cut);
      cuts.push(cut);
    });
    await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
    const address = relay.address();
    assert.ok(typeof address === "object" && address !== null);
    using channel = new RpcChannel({ target: `127.0.0.1:${address.port}` });
    const call = channel.client(ContainerService).exec();
    await call.write({ command: line("cut"), noTimeout: true });
    await call.responses[Symbol.asyncIterator]().next();
    assert.ok(alive(mark("cut")) >= 2);
    for (const cut of cuts) cut();
    await until(() => alive(mark("cut")) === 0);
    relay.close();
  });

  test("in the middle of a terminal session leaves nothing running", async () => {
    await using agent = await testAgent();
    const call = agent.client.exec();
    await call.write({ command: `: ${mark("pty")}; sleep 60 & cat`, pty: true, noTimeout: true });
    await call.responses.accepted;
    await until(() => alive(mark("pty")) > 0);
    await call[Symbol.asyncDispose]();
    await until(() => alive(mark("pty")) === 0);
  });
});
