// The life of `memoh agent` as a process of its own, on both runtimes: start, refusal to start, memory, stop.
import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { ContainerService, ExecOutput_Stream } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { sessionMembers } from "../../../src/lib/session.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { type AgentProcess, agentProcess, memoryOf, RUNTIMES } from "../../support/agent-process.ts";

const GIB = 1 << 30;

function channelTo(agent: AgentProcess): RpcChannel {
  return new RpcChannel({ target: `unix:${agent.socket}`, window: 4 << 20 });
}

for (const runtime of RUNTIMES) {
  describe(`memoh agent on ${runtime}`, { timeout: 120_000 }, () => {
    test("serves a private socket, says hello, shows its log, and stops at once with status 0", async () => {
      await using agent = await agentProcess(runtime);
      await agent.logged("agent ready");
      assert.equal((await stat(agent.socket)).mode & 0o777, 0o600);
      using channel = channelTo(agent);
      const client = channel.client(ContainerService);
      const hello = await client.hello({});
      assert.equal(hello.botId, "local");
      assert.match(hello.bootId, /^[0-9a-f-]{36}$/);
      assert.match(hello.runtime, new RegExp(`^${runtime} `));
      const health = await client.health({});
      assert.ok(health.rssBytes > 0n && health.processes === 0);
      let log = "";
      for await (const { data } of client.logs({})) log += Buffer.from(data).toString();
      assert.match(log, /agent ready/);
      agent.child.kill("SIGTERM");
      assert.deepEqual(await agent.exited, { code: 0, signal: null });
      await assert.rejects(stat(agent.socket), { code: "ENOENT" });
    });

    test("asked to stop, lets a short call finish, ends the others with their processes", async () => {
      await using agent = await agentProcess(runtime);
      await agent.logged("agent ready");
      using channel = channelTo(agent);
      const client = channel.client(ContainerService);
      const long = client.exec();
      await long.write({ command: "trap '' TERM; echo $$; while :; do sleep 0.2; done", noTimeout: true });
      const first = await long.responses[Symbol.asyncIterator]().next();
      assert.ok(first.done !== true);
      const pid = Number(Buffer.from(first.value.data).toString());
      const short = client.exec();
      await short.write({ command: "echo up; sleep 1; echo done", noTimeout: true });
      short.end();
      await short.responses.accepted;
      const reading = (async () => {
        let text = "";
        for await (const message of short.responses) text += Buffer.from(message.data).toString();
        return text;
      })();
      agent.child.kill("SIGTERM");
      assert.equal(await reading, "up\ndone\n");
      assert.deepEqual(await agent.exited, { code: 0, signal: null });
      assert.deepEqual(sessionMembers(pid), []);
    });

    test("keeps its memory while a gigabyte passes through it, and while nobody reads", async () => {
      await using agent = await agentProcess(runtime);
      await agent.logged("agent ready");
      using channel = channelTo(agent);
      const client = channel.client(ContainerService);
      const fresh = memoryOf(agent.pid, "VmHWM");
      {
        await using stalled = client.exec();
        await stalled.write({ argv: ["yes"], noTimeout: true });
        await stalled.responses[Symbol.asyncIterator]().next();
        await using call = client.exec();
        const bytes = runtime === "bun" ? GIB : GIB / 8;
        await call.write({ argv: ["head", "-c", String(bytes), "/dev/zero"], noTimeout: true });
        call.end();
        let size = 0;
        for await (const message of call.responses) {
          if (message.stream === ExecOutput_Stream.STDOUT) size += message.data.length;
        }
        assert.equal(size, bytes);
      }
      const grown = Math.round((memoryOf(agent.pid, "VmHWM") - fresh) / 1024);
      assert.ok(grown < 192, `grew by ${grown} MiB`);
    });

    // What follows is the same code on both; it is run where it ships.
    if (runtime === "node") return;

    test("takes over the socket of a killed agent, but not that of a living one or another file", async () => {
      await using first = await agentProcess(runtime);
      await first.logged("agent ready");
      const flags = [`--listen=unix:${first.socket}`, `--work-dir=${join(first.dir, "data")}`];
      {
        await using second = await agentProcess(runtime, { flags });
        assert.notEqual((await second.exited).code, 0);
        assert.match(second.log(), /Cannot listen on unix:.*another program serves there/);
      }
      first.child.kill("SIGKILL");
      await first.exited;
      await using third = await agentProcess(runtime, { flags });
      await third.logged("agent ready");
      const file = join(first.dir, "file");
      await writeFile(file, "keep");
      await using fourth = await agentProcess(runtime, { flags: [`--listen=unix:${file}`, flags[1] ?? ""] });
      assert.notEqual((await fourth.exited).code, 0);
      assert.match(fourth.log(), /the path is not a socket/);
      assert.equal((await stat(file)).size, 4);
    });

    test("refuses a taken port, an address that is not loopback, and a missing identity, and says why", async () => {
      const holder = createServer();
      await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
      const address = holder.address();
      assert.ok(typeof address === "object" && address !== null);
      const cases: [string[], RegExp][] = [
        [
          ["--insecure", `--listen=127.0.0.1:${address.port}`],
          /Cannot listen on 127\.0\.0\.1:\d+:.*EADDRINUSE/,
        ],
        [["--insecure", "--listen=0.0.0.0:0"], /without TLS: it is not a loopback address/],
        [["--listen=127.0.0.1:0", "--identity-dir=/nope"], /Cannot read the identity \/nope\/identity\.json/],
        [["--nonsense"], /no such option/],
      ];
      for (const [flags, message] of cases) {
        await using agent = await agentProcess(runtime, { flags: [...flags, "--work-dir=/tmp"] });
        const { code } = await agent.exited;
        assert.ok(code !== 0 && code !== null, flags.join(" "));
        assert.match(agent.log(), message);
        assert.doesNotMatch(agent.log(), /agent ready/);
      }
      holder.close();
    });

    test("serves although its work directory cannot be made, and says so", async () => {
      await using agent = await agentProcess(runtime, {
        flags: ["--insecure", "--listen=127.0.0.1:0", "--work-dir=/etc/passwd/below"],
      });
      await agent.logged("agent ready");
      assert.match(agent.log(), /work directory is not ready/);
    });

    test("does not read files or variables that a bot could plant", async () => {
      await using agent = await agentProcess(runtime, { env: { MEMOH_SECRET: "s", BUN_CONFIG_X: "x" } });
      await agent.logged("agent ready");
      using channel = channelTo(agent);
      await using call = channel.client(ContainerService).exec();
      await call.write({ argv: ["env"] });
      call.end();
      let text = "";
      for await (const message of call.responses) text += Buffer.from(message.data).toString();
      assert.doesNotMatch(text, /MEMOH_|BUN_/);
    });
  });
}
