// An agent that is killed and comes back, seen from a host: real processes, real certificates, a real pool.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { ExecEvent, Workspace } from "../../src/core/workspace.ts";
import { Pki } from "../../src/host/pki.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { sleep } from "../../src/lib/signal.ts";
import { type Address, Addresses } from "../../src/remote/addresses.ts";
import { Pool } from "../../src/remote/pool.ts";
import { BOT } from "../support/fake-agent.ts";
import { faultOf, gather, until } from "../support/pieces.ts";

const MAIN = join(import.meta.dirname, "../../src/main.ts");

let home: string;
let data: string;
let port: number;
let pki: Pki;
let pool: Pool;
let addresses: Addresses;
let agent: ChildProcess | undefined;

/** Starts an agent process of this boot, as a host does: identity and keys first. */
async function start(bootId: string): Promise<void> {
  const identity = await pki.mintAgentIdentity(BOT, bootId);
  const id = join(home, "id");
  await mkdir(id, { recursive: true });
  await writeFile(join(id, "identity.json"), JSON.stringify({ bot_id: BOT, boot_id: bootId }));
  await writeFile(join(id, "agent.key"), identity.privateKey);
  await writeFile(join(id, "host-ca.crt"), identity.hostCa);
  await writeFile(join(id, "agent.crt"), identity.certificate);
  agent = spawn(
    process.execPath,
    [
      MAIN,
      "agent",
      `--listen=127.0.0.1:${port}`,
      `--identity-dir=${id}`,
      `--work-dir=${data}`,
      `--template-dir=${home}/none`,
      "--log-level=error",
    ],
    { stdio: ["ignore", "inherit", "inherit"] },
  );
}

async function kill(): Promise<void> {
  if (agent === undefined || agent.exitCode !== null || agent.signalCode !== null) return;
  const exited = once(agent, "exit");
  agent.kill("SIGKILL");
  await exited;
}

/** Start, address, ready: what a host does for every start. */
async function run(bootId: string): Promise<Workspace> {
  await start(bootId);
  await addresses.setContainerIP(BOT, "127.0.0.1", bootId);
  return await pool.ready(BOT, { timeoutMs: 20_000 });
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  server.close();
  return address.port;
}

before(async () => {
  home = await mkdtemp(join(tmpdir(), "memoh-death-"));
  data = join(home, "data");
  port = await freePort();
  const log = silentLogger();
  pki = await Pki.open({ directory: join(home, "pki"), log });
  let kept: Address | undefined;
  addresses = new Addresses({
    load: async () => await Promise.resolve(kept),
    save: async (_, address) => {
      kept = await Promise.resolve(address);
    },
    onChange: (botId) => {
      pool.evict(botId);
    },
  });
  pool = new Pool({
    log,
    endpoints: async (botId, wait) => {
      const address = await addresses.get(botId, wait);
      assert.ok(address !== undefined);
      const target = `${address.ip}:${port}`;
      return { botId, bootId: address.bootId, target, tls: pki.clientTls(botId) };
    },
  });
});

after(async () => {
  await kill();
  await pool[Symbol.asyncDispose]();
  pki[Symbol.dispose]();
  await rm(home, { recursive: true, force: true });
});

test("an agent killed in the middle of everything: every call ends, nothing is half written, the next start is found", async () => {
  const workspace = await run("boot-1");
  await workspace.writeFile("f", Buffer.from("old"));
  await workspace.writeFile("big", Buffer.alloc(64 << 20));

  const sending = Promise.withResolvers<void>();
  async function* endless() {
    for (let i = 0; ; i++) {
      if (i === 20) sending.resolve();
      yield Buffer.alloc(100_000);
      await sleep(1);
    }
  }
  const writing = faultOf(workspace.writeRaw("f", endless()), "unavailable");
  const reader = (await workspace.readRaw("big"))[Symbol.asyncIterator]();
  await reader.next();
  await using execution = await workspace.exec({ command: "echo up; cat" });
  const events: ExecEvent[] = [];
  const listening = faultOf(
    (async () => {
      for await (const event of execution.events) events.push(event);
    })(),
    "unavailable",
  );
  await until("the command is up", () => events.length > 0);
  await sending.promise;
  await kill();

  await writing;
  assert.match((await listening).message, /interrupted/);
  await faultOf(gather({ [Symbol.asyncIterator]: () => reader }), "unavailable");
  await until("the connection is given up", () => pool.size === 0);
  const refused = await faultOf(workspace.health(), "unavailable");
  assert.match(refused.message, /connection refused/);

  const again = await run("boot-2");
  assert.equal((await gather(await again.readRaw("f"))).toString(), "old");
  assert.equal((await again.hello()).bootId, "boot-2");
  assert.equal((await workspace.hello()).bootId, "boot-2", "the handle from before finds it too");
  assert.deepEqual((await readdir(data)).sort(), ["big", "f"], "what the killed agent left was swept");
  assert.equal(await readFile(join(data, "f"), "utf8"), "old");
});

test("an agent that was started behind the host's back is not talked to until the host knows of it", async () => {
  await kill();
  const workspace = await run("boot-3");
  await workspace.health();
  await kill();
  await until("the connection is given up", () => pool.size === 0);
  await start("boot-4");
  await until("it listens", async () => {
    const fault = await faultOf(workspace.health());
    return fault.code !== "unavailable";
  });
  const fault = await faultOf(workspace.health(), "failed_precondition");
  assert.match(fault.message, /boot-4.*boot-3/);
  await addresses.setContainerIP(BOT, "127.0.0.1", "boot-4");
  assert.equal((await workspace.hello()).bootId, "boot-4");
});
