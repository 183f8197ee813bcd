// A real agent in this process, on a unix socket and a temporary directory, and a channel to it.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAgentLog } from "../../src/agent/agent-log.ts";
import { type Agent, startAgent } from "../../src/agent/run-agent.ts";
import { type AgentConfig, loadAgentConfig } from "../../src/config/agent-config.ts";
import { ContainerService } from "../../src/gen/proto/mcpcontainer/container_pb.ts";
import { RpcChannel } from "../../src/rpc/channel.ts";
import type { RpcClient } from "../../src/rpc/client.ts";

export interface TestAgent extends AsyncDisposable {
  readonly agent: Agent;
  readonly config: AgentConfig;
  /** `unix:/…/agent.sock`, or `127.0.0.1:port` when asked to listen there. */
  readonly target: string;
  /** The work directory, relative paths are below it. */
  readonly workDir: string;
  readonly channel: RpcChannel;
  readonly client: RpcClient<typeof ContainerService>;
  /** Log lines so far. */
  readonly lines: readonly string[];
}

export interface TestAgentOptions {
  readonly botId?: string;
  readonly bootId?: string;
  readonly commandEnv?: Readonly<Record<string, string>>;
  /** Flags of `memoh agent`, over those of the helper; `--listen` for example. */
  readonly flags?: readonly string[];
}

/** Starts an agent; disposing stops it and removes everything it had. */
export async function testAgent(options: TestAgentOptions = {}): Promise<TestAgent> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "memoh-agent-"));
  stack.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const identityDir = join(dir, "id");
  await mkdir(identityDir);
  await writeFile(
    join(identityDir, "identity.json"),
    JSON.stringify({
      bot_id: options.botId ?? "0b0e5c1e-0000-4000-8000-000000000001",
      boot_id: options.bootId ?? "boot-1",
      command_env: options.commandEnv,
    }),
  );
  const config = loadAgentConfig(
    [
      `--listen=unix:${join(dir, "agent.sock")}`,
      `--work-dir=${join(dir, "data")}`,
      `--identity-dir=${identityDir}`,
      `--template-dir=${join(dir, "templates")}`,
      "--log-level=debug",
      ...(options.flags ?? []),
    ],
    {},
  );
  const lines: string[] = [];
  const agentLog = createAgentLog(config.log, (line) => void lines.push(line));
  const agent = stack.use(await startAgent(config, { agentLog }));
  const channel = stack.use(new RpcChannel({ target: agent.target }));
  const owned = stack.move();
  return {
    agent,
    config,
    target: agent.target,
    workDir: config.workDir,
    channel,
    client: channel.client(ContainerService),
    lines,
    [Symbol.asyncDispose]: async () => {
      await owned[Symbol.asyncDispose]();
    },
  };
}
