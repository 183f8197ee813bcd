// Composition root of the agent: identity, files, processes and the server that offers them.
import type { AgentConfig } from "../config/agent-config.ts";
import type { Health, Hello } from "../core/workspace.ts";
import { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import { buildInfo } from "../lib/build-info.ts";
import { SYSTEM_PATH } from "../lib/command.ts";
import { faultFromErrno } from "../lib/errno.ts";
import type { Logger } from "../lib/log.ts";
import { throwIfAborted } from "../lib/signal.ts";
import { RpcServer } from "../rpc/server.ts";
import { type AgentLog, createAgentLog } from "./agent-log.ts";
import { fileHandlers } from "./file-handlers.ts";
import { bytePath } from "./files/byte-path.ts";
import { LocalFiles } from "./files/local-files.ts";
import { makeDirs } from "./files/make-dirs.ts";
import { sweepTemps } from "./files/sweep-temps.ts";
import { type AgentIdentity, readIdentity } from "./identity.ts";
import { listenOn } from "./listen.ts";
import { processHandlers } from "./process-handlers.ts";
import { Processes } from "./processes/processes.ts";
import { seedTemplates } from "./seed.ts";
import { systemHandlers } from "./system-handlers.ts";
import { readTls, watchTls } from "./tls-files.ts";

/** What this build can do beyond the original, as Hello tells it. */
const CAPABILITIES = ["argv", "pty", "signal", "paging", "logs"] as const;

/** The parts of a stop, milliseconds; together under the 5 s after which the host kills. */
const DRAIN_MS = 2_000;
const TERM_MS = 1_500;

const RENEWAL_LOOK_MS = 30_000;

export interface AgentOptions {
  /** Made from the config when absent. */
  readonly agentLog?: AgentLog;
  /** How often a new certificate is looked for. */
  readonly renewalMs?: number;
}

/** An agent that answers. Disposing stops it: new calls are refused, running ones drain 2 s, processes are ended. */
export interface Agent extends AsyncDisposable {
  /** Where it is reached: `host:port` or `unix:/path`. */
  readonly target: string;
  readonly hello: Hello;
  readonly log: Logger;
}

/** Starts an agent, whole or not at all. @throws Fault */
export async function startAgent(config: AgentConfig, options: AgentOptions = {}): Promise<Agent> {
  await using stack = new AsyncDisposableStack();
  const { log, ring } = options.agentLog ?? createAgentLog(config.log);
  const startedAt = performance.now();
  const startedAtMs = Date.now();
  const identity = await readIdentity(config.identityDir);
  const files = new LocalFiles({ workDir: config.workDir });
  await prepareWorkDir(config, files, log);
  const processes = new Processes({
    log,
    workDir: config.workDir,
    env: commandEnv(config, identity),
  });
  stack.defer(async () => {
    await processes.close(TERM_MS);
  });

  const hello: Hello = {
    botId: identity.botId,
    bootId: identity.bootId,
    ...buildInfo,
    capabilities: CAPABILITIES,
  };
  const health = (): Health => ({
    uptimeMs: Math.round(performance.now() - startedAt),
    rssBytes: process.memoryUsage.rss(),
    processes: processes.running,
  });
  const server = new RpcServer({ log });
  stack.defer(async () => {
    await server.close(DRAIN_MS);
  });
  server.add(ContainerService, {
    ...fileHandlers(files),
    ...processHandlers(processes),
    ...systemHandlers({ hello, health, ring }),
  });
  const secure = config.listen.kind === "tcp" && !config.listen.insecure;
  const tlsDir = secure ? config.identityDir : undefined;
  const tls = tlsDir === undefined ? undefined : await readTls(tlsDir);
  const target = await listenOn(server, config.listen, tls);
  if (tlsDir !== undefined) {
    const onRenewed = server.renew.bind(server);
    const intervalMs = options.renewalMs ?? RENEWAL_LOOK_MS;
    stack.use(await watchTls(tlsDir, { log, intervalMs, onRenewed }));
  }
  log.info({ target, botId: hello.botId, version: hello.version, runtime: hello.runtime }, "agent ready");
  stack.use(sweepBeside(config.workDir, startedAtMs, log));

  const owned = stack.move();
  return {
    target,
    hello,
    log,
    [Symbol.asyncDispose]: async () => {
      log.info("agent stopping");
      await owned[Symbol.asyncDispose]();
    },
  };
}

/** Runs an agent until the signal aborts. @throws Fault when it cannot start */
export async function runAgent(
  config: AgentConfig,
  options: AgentOptions & { readonly signal: AbortSignal },
): Promise<void> {
  throwIfAborted(options.signal);
  const agent = await startAgent(config, options);
  const { promise: stopped, resolve } = Promise.withResolvers<void>();
  if (options.signal.aborted) resolve();
  else options.signal.addEventListener("abort", () => resolve(), { once: true });
  await stopped;
  await agent[Symbol.asyncDispose]();
}

/** The image's environment when the host named it, so that nothing of the agent's own gets through. */
function commandEnv({ commandEnv: own }: AgentConfig, identity: AgentIdentity): Record<string, string> {
  if (identity.commandEnv === undefined) return { ...own };
  const { PATH = SYSTEM_PATH, HOME = "/" } = own;
  return { PATH, HOME, ...identity.commandEnv };
}

/** Without its directory an agent is still worth having: whoever asks for a file in it is told. */
async function prepareWorkDir(
  { workDir, templateDir }: AgentConfig,
  files: LocalFiles,
  log: Logger,
): Promise<void> {
  try {
    // Not mkdir with `recursive`: Node spins for ever where a directory cannot be made, as in /proc.
    await makeDirs(bytePath(workDir));
    await seedTemplates({ templates: templateDir, workDir, files, log });
  } catch (error) {
    log.warn({ err: faultFromErrno(error, `Cannot prepare ${workDir}`) }, "work directory is not ready");
  }
}

/** Removes what a crash left while the agent already answers: a large tree must not delay a start. */
function sweepBeside(workDir: string, before: number, log: Logger): AsyncDisposable {
  const stop = new AbortController();
  const sweeping = sweepTemps(workDir, { before, signal: stop.signal }).then(
    (removed) => {
      if (removed > 0) log.info({ removed }, "temporary files of an earlier run removed");
    },
    (error: unknown) => {
      if (!stop.signal.aborted) log.warn({ err: error }, "temporary files of an earlier run stay");
    },
  );
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await sweeping;
    },
  };
}
