// npm run bench: the figures of issue 2 section 11, each beside a reference measured in the same run. Runs under Bun, as
// the product does, against a host of its own with a small image. Writes test/bench/RESULTS.md.
import { spawn } from "node:child_process";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { mustRun, SYSTEM_PATH } from "../../src/lib/command.ts";
import { workspaceOver } from "../../src/remote/provider.ts";
import { RpcChannel } from "../../src/rpc/channel.ts";
import { botClient } from "../support/bot-client.ts";
import { executable, startHost, type TestHost } from "../support/host.ts";
import { api, download, upload } from "./api.ts";
import { memoryOf, processesWith } from "./memory.ts";
import { compare, measure, percentile, type Row, type Series, table, throughput } from "./stats.ts";

interface BotJson {
  readonly id: string;
  readonly ip: string;
  readonly container_id: string;
}

const N = 30;
const MIB = 2 ** 20;
const FILE = 256 * MIB;

async function main(): Promise<void> {
  const rows: Row[] = [];
  {
    await using host = await startHost();
    rows.push(...(await lifecycle(host)));
    rows.push(...(await execs(host)));
    rows.push(...(await streams(host)));
    rows.push(...(await memory(host)));
  }
  rows.push(...(await clearStreams()));
  const load = (await mustRun(["cat", "/proc/loadavg"])).stdout.split(" ").slice(0, 3).join(" ");
  const machine = `${cpus().length} cores ${cpus()[0]?.model ?? ""}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${(await mustRun(["uname", "-r"])).stdout.trim()}, load ${load}`;
  const version = (await mustRun([executable(), "--version"])).stdout.trim();
  const report = `# Measured\n\n${new Date().toISOString().slice(0, 10)}, ${machine}; ${version}. Made by \`npm run bench\`.\n\n${table(rows)}\n`;
  await writeFile(join(import.meta.dirname, "RESULTS.md"), report);
  console.log(report);
}

/** Create to ready, stop and restart through the API, beside `ctr run -d` and `ctr task kill` of the same image. */
async function lifecycle(host: TestHost): Promise<Row[]> {
  const ctr = (...args: string[]) =>
    mustRun([
      "ctr",
      "--address",
      join(host.runDir, "containerd", "containerd.sock"),
      "--namespace",
      host.instance,
      ...args,
    ]);
  const create: number[] = [];
  const stop: number[] = [];
  const start: number[] = [];
  const ctrRun: number[] = [];
  const timed = async (into: number[], work: () => Promise<unknown>) => {
    const began = performance.now();
    await work();
    into.push(performance.now() - began);
  };
  for (let round = -3; round < N; round++) {
    const sink =
      round < 0 ? { create: [], stop: [], start: [], ctr: [] } : { create, stop, start, ctr: ctrRun };
    const name = `b${round + 3}`;
    await timed(sink.create, () => api(host.socketPath, "POST", "/bots", { name }));
    await timed(sink.stop, () => api(host.socketPath, "POST", `/bots/${name}/stop`));
    await timed(sink.start, () => api(host.socketPath, "POST", `/bots/${name}/start`));
    await api(host.socketPath, "DELETE", `/bots/${name}`);
    await timed(sink.ctr, () => ctr("run", "-d", host.image, `r${name}`, "/bin/sleep", "1000"));
    await ctr("task", "kill", "-s", "SIGKILL", `r${name}`);
    await ctr("task", "rm", "-f", `r${name}`).catch(() => undefined);
    await ctr("container", "rm", `r${name}`);
  }
  const reference: Series = { name: "ctr run -d (no network, no agent)", values: ctrRun };
  return [
    compare({ name: "create to ready, API", values: create }, reference),
    compare({ name: "stop, API", values: stop }, undefined),
    compare({ name: "start again to ready, API", values: start }, reference),
  ];
}

/** /bin/true through the client and the API, beside containerd's own task exec. */
async function execs(host: TestHost): Promise<Row[]> {
  const bot = (await api(host.socketPath, "POST", "/bots", { name: "exec" })) as BotJson;
  await using client = await botClient(host, bot);
  const run = async () => {
    await using execution = await client.workspace.exec({ command: ["/bin/true"] });
    for await (const event of execution.events)
      if (event.kind === "exit" && event.status.code !== 0) throw new Error("failed");
  };
  let count = 0;
  const taskExec = async () => {
    count += 1;
    await mustRun([
      "ctr",
      "--address",
      join(host.runDir, "containerd", "containerd.sock"),
      "--namespace",
      host.instance,
      "task",
      "exec",
      "--exec-id",
      `x${count}`,
      bot.container_id,
      "/bin/true",
    ]);
  };
  const viaClient = await measure("exec /bin/true, client", 300, 30, run);
  const viaApi = await measure("exec /bin/true, API", 200, 20, async () => {
    await api(host.socketPath, "POST", `/bots/${bot.id}/exec`, { argv: ["/bin/true"] });
  });
  const reference = await measure("ctr task exec", N, 3, taskExec);
  const grpc = await taskExecGrpc(host, bot.container_id);
  await api(host.socketPath, "DELETE", `/bots/${bot.id}`);
  return [compare(viaClient, grpc), compare(viaApi, grpc), compare(viaClient, reference)];
}

/** containerd's task exec without the cost of starting ctr: Exec, Start, Wait, DeleteProcess over its API. */
async function taskExecGrpc(host: TestHost, containerId: string): Promise<Series> {
  const { ContainerdClient } = await import("../../src/containerd/client.ts");
  await using client = new ContainerdClient({
    socket: join(host.runDir, "containerd", "containerd.sock"),
    namespace: host.instance,
  });
  const process = {
    args: ["/bin/true"],
    cwd: "/",
    env: ["PATH=/bin"],
    user: { uid: 0, gid: 0 },
    noNewPrivileges: true,
  };
  const spec = {
    typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process",
    value: new Uint8Array(Buffer.from(JSON.stringify(process))),
  };
  return await measure("containerd task exec (gRPC)", N * 2, 5, async (round) => {
    const execId = `g${round}`;
    await client.tasks.exec({ containerId, execId, spec });
    const wait = client.tasks.wait({ containerId, execId }, { timeoutMs: 20_000 });
    await client.tasks.start({ containerId, execId });
    await wait;
    await client.tasks.deleteProcess({ containerId, execId });
  });
}

/** Reads and writes of a large file over mutual TLS, beside a copy of the same file on this machine. */
async function streams(host: TestHost): Promise<Row[]> {
  const bot = (await api(host.socketPath, "POST", "/bots", { name: "stream" })) as BotJson;
  await using client = await botClient(host, bot);
  const copies = await fileCopies();
  const rates = { clientWrite: [], clientRead: [], apiWrite: [], apiRead: [] } as Record<string, number[]>;
  const rate = async (name: string, work: () => Promise<unknown>) => {
    const began = performance.now();
    await work();
    rates[name]?.push(FILE / MIB / ((performance.now() - began) / 1000));
  };
  const fs = `/bots/${bot.id}/container/fs`;
  for (let round = 0; round < 5; round++) {
    await rate("clientWrite", () => client.workspace.writeRaw("bench", bytes(FILE)));
    await rate("clientRead", async () => {
      await drain(await client.workspace.readRaw("bench"));
    });
    await rate("apiWrite", () => upload(host.socketPath, `${fs}/upload?path=/data/bench`, FILE));
    await rate("apiRead", () => download(host.socketPath, `${fs}/download?path=/data/bench`));
  }
  await api(host.socketPath, "DELETE", `/bots/${bot.id}`);
  const of = (name: string) => rates[name] ?? [];
  return [
    throughput("read, client, mutual TLS, in a container", of("clientRead"), "file copy", copies),
    throughput("write, client, mutual TLS, in a container", of("clientWrite"), "file copy", copies),
    throughput("read, API, mutual TLS, in a container", of("apiRead"), "file copy", copies),
    throughput("write, API, mutual TLS, in a container", of("apiWrite"), "file copy", copies),
  ];
}

/** The same in the clear on loopback, beside a plain loopback pipe. */
async function clearStreams(): Promise<Row[]> {
  const dir = await mkdtemp("/tmp/memoh-bench-");
  const port = 20_000 + (process.pid % 20_000);
  const agent = spawn(
    executable(),
    ["agent", "--insecure", "--listen", `127.0.0.1:${port}`, "--work-dir", dir],
    {
      stdio: "ignore",
      env: { PATH: SYSTEM_PATH },
    },
  );
  try {
    using channel = new RpcChannel({ target: `127.0.0.1:${port}`, window: 4 << 20 });
    await channel.ready(10_000);
    const provider = workspaceOver(channel, "bench");
    const read: number[] = [];
    const write: number[] = [];
    for (let round = 0; round < 5; round++) {
      const wrote = performance.now();
      await provider.writeRaw("bench", bytes(FILE));
      write.push(FILE / MIB / ((performance.now() - wrote) / 1000));
      const began = performance.now();
      await drain(await provider.readRaw("bench"));
      read.push(FILE / MIB / ((performance.now() - began) / 1000));
    }
    const pipe = await loopbackPipes();
    return [
      throughput("read, client, in the clear on loopback", read, "loopback pipe", pipe),
      throughput("write, client, in the clear on loopback", write, "loopback pipe", pipe),
    ];
  } finally {
    agent.kill("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  }
}

/** Agents and host with 20 bots, fresh and after 1,000 rpcs each. */
async function memory(host: TestHost): Promise<Row[]> {
  const bots: BotJson[] = [];
  for (let index = 0; index < 20; index++) {
    bots.push((await api(host.socketPath, "POST", "/bots", { name: `m${index}` })) as BotJson);
  }
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const agents = () => processesWith("/opt/memoh/memoh", "agent").filter((pid) => !isInit(pid));
  const figures = (pids: readonly number[]) => {
    const all = pids.map(memoryOf);
    return `PSS ${percentile(
      all.map((each) => each.pss),
      50,
    ).toFixed(1)} MiB, RSS ${percentile(
      all.map((each) => each.rss),
      50,
    ).toFixed(1)} MiB (median of ${pids.length})`;
  };
  const fresh = figures(agents());
  for (const bot of bots) {
    await using client = await botClient(host, bot);
    for (let round = 0; round < 1000; round++) await client.workspace.stat("/data");
  }
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const used = figures(agents());
  const hostPid = processesWith(executable(), "host")[0] ?? 0;
  const hostMemory = memoryOf(hostPid);
  const row = (what: string, figure: string): Row => ({ what, figures: figure, reference: "", ratio: "" });
  return [
    row("agent, idle, 20 at once, fresh", fresh),
    row("agent, after 1,000 rpcs each", used),
    row("host with 20 bots", `RSS ${hostMemory.rss.toFixed(0)} MiB, PSS ${hostMemory.pss.toFixed(0)} MiB`),
  ];
}

function isInit(pid: number): boolean {
  return memoryOf(pid).rss < 5;
}

async function* bytes(size: number): AsyncGenerator<Uint8Array> {
  const chunk = Buffer.alloc(256 << 10, 7);
  for (let sent = 0; sent < size; sent += chunk.length) yield chunk;
}

async function drain(source: AsyncIterable<Uint8Array>): Promise<void> {
  let size = 0;
  for await (const chunk of source) size += chunk.length;
  if (size !== FILE) throw new Error(`read ${size} bytes of ${FILE}`);
}

async function fileCopies(): Promise<number[]> {
  const dir = await mkdtemp("/tmp/memoh-bench-");
  try {
    const source = join(dir, "a");
    await mustRun(["dd", "if=/dev/zero", `of=${source}`, "bs=1M", `count=${FILE / MIB}`]);
    const rates: number[] = [];
    for (let round = 0; round < 5; round++) {
      const began = performance.now();
      await copyFile(source, join(dir, "b"));
      rates.push(FILE / MIB / ((performance.now() - began) / 1000));
    }
    return rates;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function loopbackPipes(): Promise<number[]> {
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const server = createServer((socket) => {
      let size = 0;
      socket.on("data", (chunk) => {
        size += chunk.length;
        if (size >= FILE) resolve();
      });
    });
    await new Promise<void>((listening) => {
      server.listen(0, "127.0.0.1", listening);
    });
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const socket = connect(port, "127.0.0.1");
    const began = performance.now();
    const chunk = Buffer.alloc(256 << 10, 7);
    for (let sent = 0; sent < FILE; sent += chunk.length) {
      if (!socket.write(chunk)) await new Promise((drained) => socket.once("drain", drained));
    }
    await promise;
    rates.push(FILE / MIB / ((performance.now() - began) / 1000));
    socket.destroy();
    server.close();
  }
  return rates;
}

await main();
