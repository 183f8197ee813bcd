// Mutual TLS of the agent: who is let in, and certificates that are renewed while it runs.
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { connect } from "node:tls";
import { createAgentLog } from "../../../src/agent/agent-log.ts";
import { type Agent, startAgent } from "../../../src/agent/run-agent.ts";
import { loadAgentConfig } from "../../../src/config/agent-config.ts";
import { ContainerService } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Pki } from "../../../src/host/pki.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type ClientTls, RpcChannel } from "../../../src/rpc/channel.ts";
import type { RpcClient } from "../../../src/rpc/client.ts";

const BOT = "0b0e5c1e-0000-4000-8000-00000000000a";
const OTHER = "0b0e5c1e-0000-4000-8000-00000000000b";

interface Rig extends AsyncDisposable {
  readonly agent: Agent;
  readonly dir: string;
  readonly pki: Pki;
  readonly lines: readonly string[];
  connect(tls?: ClientTls): RpcChannel;
  renew(botId?: string): Promise<void>;
}

async function makePki(dir: string): Promise<Pki> {
  return await Pki.open({ directory: join(dir, "pki"), log: silentLogger() });
}

async function rig(): Promise<Rig> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "memoh-agent-tls-"));
  stack.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const pki = stack.use(await makePki(dir));
  const id = join(dir, "id");
  await mkdir(id);
  const put = async (name: string, text: string) => {
    await writeFile(join(id, `${name}.new`), text);
    await rename(join(id, `${name}.new`), join(id, name));
  };
  const renew = async (botId = BOT) => {
    const keys = await pki.mintAgentIdentity(botId, "boot-1");
    await put("agent.key", keys.privateKey);
    await put("host-ca.crt", keys.hostCa);
    await put("agent.crt", keys.certificate);
  };
  await renew();
  await put("identity.json", JSON.stringify({ bot_id: BOT, boot_id: "boot-1" }));
  const config = loadAgentConfig(
    ["--listen=127.0.0.1:0", `--identity-dir=${id}`, `--work-dir=${join(dir, "data")}`, "--log-level=debug"],
    {},
  );
  const lines: string[] = [];
  const agentLog = createAgentLog(config.log, (line) => void lines.push(line));
  const agent = stack.use(await startAgent(config, { agentLog, renewalMs: 20 }));
  const owned = stack.move();
  return {
    agent,
    dir,
    pki,
    lines,
    renew,
    connect: (tls) => new RpcChannel({ target: agent.target, tls: tls ?? pki.clientTls(BOT) }),
    [Symbol.asyncDispose]: async () => {
      await owned[Symbol.asyncDispose]();
    },
  };
}

function hello(channel: RpcChannel): ReturnType<RpcClient<typeof ContainerService>["hello"]> {
  return channel.client(ContainerService).hello({}, { timeoutMs: 10_000 });
}

/** Serial number of the certificate a new connection is shown. */
async function shown(target: string): Promise<string> {
  const [host, port] = target.split(":");
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(
    { host, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"] },
    () => {
      resolve(socket.getPeerCertificate().serialNumber);
    },
  );
  socket.on("error", reject);
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

describe("an agent with mutual TLS", { timeout: 60_000 }, () => {
  test("answers its host", async () => {
    await using tls = await rig();
    using channel = tls.connect();
    const answer = await hello(channel);
    assert.deepEqual([answer.botId, answer.bootId], [BOT, "boot-1"]);
  });

  test("lets in nobody without the host's certificate", async () => {
    await using tls = await rig();
    await using stack = new AsyncDisposableStack();
    const foreignDir = await mkdtemp(join(tmpdir(), "memoh-agent-tls-"));
    stack.defer(async () => {
      await rm(foreignDir, { recursive: true, force: true });
    });
    const foreign = stack.use(await makePki(foreignDir));
    const good = tls.pki.clientTls(BOT);
    const agentKeys = await tls.pki.mintAgentIdentity(OTHER, "boot-1");
    const callers: Record<string, RpcChannel> = {
      "in the clear": new RpcChannel({ target: tls.agent.target }),
      "of a foreign CA": tls.connect({ ...foreign.clientTls(BOT), serverCa: good.serverCa }),
      "with another bot's certificate": tls.connect({
        ...good,
        certificate: Buffer.from(agentKeys.certificate),
        privateKey: Buffer.from(agentKeys.privateKey),
      }),
    };
    for (const [who, channel] of Object.entries(callers)) {
      await assert.rejects(hello(channel), { code: "unavailable" }, who);
      channel[Symbol.dispose]();
    }
    using channel = tls.connect();
    await hello(channel);
  });

  test("is not taken for another bot's agent", async () => {
    await using tls = await rig();
    using channel = tls.connect(tls.pki.clientTls(OTHER));
    await assert.rejects(hello(channel), { code: "unavailable" });
  });

  test("shows a renewed certificate to new connections while old ones and their calls go on", async () => {
    await using tls = await rig();
    using channel = tls.connect();
    const call = channel.client(ContainerService).exec();
    await call.write({ command: "cat", noTimeout: true });
    await call.responses.accepted;
    const before = await shown(tls.agent.target);
    await tls.renew();
    while ((await shown(tls.agent.target)) === before)
      await new Promise((resolve) => setTimeout(resolve, 20));
    await call.write({ stdinData: Buffer.from("still here") });
    call.end();
    let text = "";
    for await (const message of call.responses) text += Buffer.from(message.data).toString();
    assert.equal(text, "still here");
    using fresh = tls.connect();
    assert.equal((await hello(fresh)).botId, BOT);
    // Nobody is let in by the new context either without a certificate.
    using clear = new RpcChannel({ target: tls.agent.target });
    await assert.rejects(hello(clear), { code: "unavailable" });
  });

  test("keeps its certificate while the new files do not fit, and takes them when they do", async () => {
    await using tls = await rig();
    const before = await shown(tls.agent.target);
    const certificate = join(tls.dir, "id", "agent.crt");
    const whole = await readFile(certificate);
    await writeFile(certificate, "not a certificate");
    while (!tls.lines.some((line) => line.includes("cannot be used yet"))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(await shown(tls.agent.target), before);
    await writeFile(certificate, whole);
    await tls.renew();
    while ((await shown(tls.agent.target)) === before)
      await new Promise((resolve) => setTimeout(resolve, 20));
  });

  test("does not start with keys that do not belong together", async () => {
    await using tls = await rig();
    const other = await tls.pki.mintAgentIdentity(BOT, "boot-1");
    await writeFile(join(tls.dir, "id", "agent.key"), other.privateKey);
    const config = loadAgentConfig(
      [
        "--listen=127.0.0.1:0",
        `--identity-dir=${join(tls.dir, "id")}`,
        `--work-dir=${tls.dir}`,
        "--log-level=silent",
      ],
      {},
    );
    await assert.rejects(startAgent(config), {
      code: "failed_precondition",
      message: /agent\.crt and agent\.key do not belong together/,
    });
  });
});
