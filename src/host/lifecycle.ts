// The life of one workspace as plans of steps: start, stop, and removal with its data.
import { randomUUID } from "node:crypto";
import type { BotRecord, WorkspaceRecord } from "../core/bot.ts";
import type { Network, NetworkResult } from "../core/network.ts";
import type { ContainerDescription, Runtime } from "../core/runtime.ts";
import type { Store } from "../core/store.ts";
import type { WorkspaceProvider } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { sleep } from "../lib/signal.ts";
import { type AgentIdentity, type BotFiles, extraCaEnv } from "./bot-files.ts";
import type { Plan, Step } from "./steps.ts";

/** Seconds an agent has to drain before it is killed (CONTRACTS 5). */
const STOP_GRACE_MS = 5_000;
/** An agent's certificate lasts a year. */
const RENEW_BEFORE_MS = 60 * 86_400_000;
/** A fresh agent answers within a fraction of a second; a loaded machine gets more. */
const AGENT_READY_MS = 30_000;

/** The agent's executable and how to start it inside. */
export interface AgentCommand {
  /** Directory of the host mounted read-only. */
  readonly source: string;
  readonly target: string;
  readonly args: readonly string[];
}

/** The registry of agents' addresses: its `set` is the one writer of a bot's address. */
export interface AddressWriter {
  setContainerIP(botId: string, ip: string, bootId: string): Promise<void>;
  /** Forgets the address and evicts the connection. */
  clear(botId: string): Promise<void>;
}

/** What plans are carried out with. */
export interface LifecycleParts {
  readonly runtime: Runtime;
  readonly network: Network;
  readonly store: () => Store;
  readonly addresses: AddressWriter;
  /** The pool: it checks identity before it hands out a workspace. */
  readonly provider: WorkspaceProvider;
  readonly files: BotFiles;
  readonly mintIdentity: (botId: string, bootId: string) => Promise<AgentIdentity>;
  readonly agent: () => Promise<AgentCommand>;
  readonly resolvConf: () => Promise<string>;
  readonly extraCa: string | undefined;
  readonly timezoneFile: string | undefined;
  readonly log: Logger;
}

/** Makes the plans. Every plan may be repeated from its beginning at any time. */
export class Lifecycle {
  readonly #parts: LifecycleParts;

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
  }

  /**
   * Whether the bot's task runs and its agent proves the identity of this very start.
   * @returns undefined when all is well, else what is wrong
   */
  async trouble(workspace: WorkspaceRecord, signal: AbortSignal): Promise<string | undefined> {
    const observed = await this.#parts.runtime.inspect(workspace.containerId, { signal });
    if (observed === undefined) return "the container is missing";
    if (observed.task !== "running") return `the task is ${observed.task}`;
    if (workspace.bootId === undefined || workspace.ip === undefined) return "the start was not finished";
    try {
      await this.#parts.addresses.setContainerIP(workspace.botId, workspace.ip, workspace.bootId);
      const agent = await this.#parts.provider.workspace(workspace.botId, { signal });
      await agent.hello({ signal });
      return undefined;
    } catch (error) {
      return Fault.from(error).message;
    }
  }

  /** Renews a running agent's certificate well before it ends. @returns whether it did */
  async renewIdentity(workspace: WorkspaceRecord): Promise<boolean> {
    const { botId, bootId } = workspace;
    const { files, mintIdentity } = this.#parts;
    const ends = await files.certificateEnds(botId);
    if (bootId === undefined || ends === undefined) return false;
    if (ends.getTime() - Date.now() > RENEW_BEFORE_MS) return false;
    await files.renewIdentity(botId, await mintIdentity(botId, bootId));
    return true;
  }

  /** From whatever is there to an agent that answers. */
  startPlan(bot: BotRecord, workspace: WorkspaceRecord): Plan {
    const { runtime, network, files } = this.#parts;
    const { botId, containerId } = workspace;
    const bootId = randomUUID();
    let attached: NetworkResult | undefined;
    let commandEnv: Record<string, string> = {};
    const wait = (signal: AbortSignal) => ({ signal });

    const clear: Step = {
      name: "clear",
      deadlineMs: 60_000,
      run: async (signal) => {
        await this.#parts.addresses.clear(botId);
        await this.#parts.store().workspaces.observe(botId, { phase: "starting", bootId }, wait(signal));
        await runtime.stopTask(containerId, { signal, graceMs: STOP_GRACE_MS });
      },
    };
    const image: Step = {
      name: "image",
      deadlineMs: 30 * 60_000,
      run: async (signal) => {
        commandEnv = await this.#commandEnv(workspace, signal);
      },
    };
    const attach: Step = {
      name: "network",
      deadlineMs: 60_000,
      permanent: [],
      run: async (signal) => {
        attached = await network.setup(containerId, wait(signal));
      },
    };
    const container: Step = {
      name: "container",
      deadlineMs: 120_000,
      run: async (signal) => {
        const description = await this.#describe(bot, workspace);
        const made = await runtime.ensureContainer(description, { signal, fresh: !workspace.readyOnce });
        await this.#parts.store().workspaces.observe(botId, { snapshotKey: made.snapshotKey }, wait(signal));
      },
    };
    const identity: Step = {
      name: "identity",
      deadlineMs: 10_000,
      run: async () => {
        await files.write({
          botId,
          botName: bot.name,
          bootId,
          identity: await this.#parts.mintIdentity(botId, bootId),
          commandEnv: this.#parts.extraCa === undefined ? commandEnv : { ...commandEnv, ...extraCaEnv() },
          resolvConf: await this.#parts.resolvConf(),
          extraCa: this.#parts.extraCa,
          timezoneFile: this.#parts.timezoneFile,
        });
      },
    };
    const task: Step = {
      name: "task",
      // What a crash in the middle of a create left behind is ended first, which takes a while.
      deadlineMs: 120_000,
      run: async (signal) => {
        await runtime.createTask(containerId, wait(signal));
        await runtime.startTask(containerId, wait(signal));
      },
    };
    const agent: Step = {
      name: "agent",
      deadlineMs: AGENT_READY_MS + 5_000,
      run: async (signal) => {
        if (attached === undefined) throw new Fault("internal", "Cannot reach the agent: no network result");
        await this.#parts.addresses.setContainerIP(botId, attached.ip, bootId);
        await this.#awaitAgent(workspace, signal);
        await this.#parts.store().workspaces.observe(
          botId,
          {
            phase: "running",
            readyOnce: true,
            ip: attached.ip,
            netnsPath: attached.netnsPath,
            bootId,
            lastError: null,
            attempts: 0,
            nextAttemptAt: null,
          },
          wait(signal),
        );
      },
    };
    return [clear, image, [attach, container, identity], task, agent];
  }

  /** To no task. Network, address and data stay. */
  stopPlan(workspace: WorkspaceRecord): Plan {
    const { botId, containerId } = workspace;
    const stop: Step = {
      name: "stop",
      deadlineMs: 60_000,
      permanent: [],
      run: async (signal) => {
        await this.#parts.store().workspaces.observe(botId, { phase: "stopping" }, { signal });
        await this.#parts.addresses.clear(botId);
        await this.#parts.runtime.stopTask(containerId, { signal, graceMs: STOP_GRACE_MS });
        await this.#parts
          .store()
          .workspaces.observe(
            botId,
            { phase: "stopped", bootId: null, lastError: null, attempts: 0, nextAttemptAt: null },
            { signal },
          );
      },
    };
    return [stop];
  }

  /** To nothing: container, network, data and the workspace's row; the bot's row too when asked. */
  removePlan(workspace: WorkspaceRecord, removeBot: boolean): Plan {
    const { runtime, network, files } = this.#parts;
    const { botId, containerId } = workspace;
    const step = (name: string, run: (signal: AbortSignal) => Promise<unknown>): Step => ({
      name,
      deadlineMs: 60_000,
      permanent: [],
      run: async (signal) => {
        await run(signal);
      },
    });
    return [
      step("stop", async (signal) => {
        await this.#parts.store().workspaces.observe(botId, { phase: "deleting" }, { signal });
        await this.#parts.addresses.clear(botId);
        await runtime.stopTask(containerId, { signal, graceMs: STOP_GRACE_MS });
      }),
      step("delete_container", (signal) => runtime.deleteContainer(containerId, { signal })),
      step("network", (signal) => network.remove(containerId, { signal })),
      step("data", (signal) => runtime.deleteData(containerId, { signal })),
      step("files", () => files.remove(botId)),
      step("record", async (signal) => {
        await this.#parts.store().events.add(
          {
            botId,
            containerId,
            type: removeBot ? "bot_delete" : "container_delete",
            payload: { image: workspace.image },
          },
          { signal },
        );
        if (removeBot) await this.#parts.store().bots.delete(botId, { signal });
        else await this.#parts.store().workspaces.delete(botId, { signal });
      }),
    ];
  }

  /** The environment of commands: the image's. An image that was removed since keeps its last known one. */
  async #commandEnv(workspace: WorkspaceRecord, signal: AbortSignal): Promise<Record<string, string>> {
    const { images } = this.#parts.runtime;
    const present = await images.get(workspace.image, { signal });
    if (present === undefined) {
      if (workspace.readyOnce) return (await this.#parts.files.lastCommandEnv(workspace.botId)) ?? {};
      await images.pull(workspace.image, { signal });
    }
    const config = await images.config(workspace.image, { signal });
    const pairs = config.env.map((entry) => {
      const at = entry.indexOf("=");
      return at < 0 ? [entry, ""] : [entry.slice(0, at), entry.slice(at + 1)];
    });
    // Commands run as root; images leave its home to whoever starts them.
    return { HOME: "/root", ...(Object.fromEntries(pairs) as Record<string, string>) };
  }

  async #describe(bot: BotRecord, workspace: WorkspaceRecord): Promise<ContainerDescription> {
    const agent = await this.#parts.agent();
    return {
      id: workspace.containerId,
      botId: bot.id,
      image: workspace.image,
      hostname: bot.name,
      netnsPath: this.#parts.network.netnsPathOf(workspace.containerId),
      limits: workspace.limits,
      mounts: [
        { source: agent.source, target: agent.target },
        ...this.#parts.files.mounts(bot.id, {
          extraCa: this.#parts.extraCa !== undefined,
          timezone: this.#parts.timezoneFile !== undefined,
        }),
      ],
      args: [...agent.args],
      env: {},
    };
  }

  /** Polls until the agent proves itself, or says why it cannot: an init that ended is told at once. */
  async #awaitAgent(workspace: WorkspaceRecord, signal: AbortSignal): Promise<void> {
    const until = Date.now() + AGENT_READY_MS;
    let pause = 4;
    let nextLook = Date.now() + 250;
    for (;;) {
      try {
        const agent = await this.#parts.provider.workspace(workspace.botId, { signal });
        await agent.hello({ signal });
        if (!workspace.readyOnce) await requireShell(agent, workspace.image, signal);
        return;
      } catch (error) {
        if (!Fault.is(error, "unavailable", "deadline_exceeded") || Date.now() > until) throw error;
        if (Date.now() > nextLook) {
          nextLook = Date.now() + 250;
          await this.#requireTask(workspace, signal);
        }
      }
      await sleep(pause, signal);
      pause = Math.min(pause * 1.5, 100);
    }
  }

  async #requireTask(workspace: WorkspaceRecord, signal: AbortSignal): Promise<void> {
    const observed = await this.#parts.runtime.inspect(workspace.containerId, { signal });
    if (observed?.task === "running") return;
    throw new Fault(
      "aborted",
      `The agent ended with status ${observed?.exitStatus ?? "unknown"} before it answered`,
      { hint: "The image may be for another platform, or the machine is out of memory" },
    );
  }
}

async function requireShell(
  agent: Awaited<ReturnType<WorkspaceProvider["workspace"]>>,
  image: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await agent.stat("/bin/sh", { signal });
  } catch (error) {
    if (!Fault.is(error, "not_found")) throw error;
    throw new Fault("failed_precondition", `Cannot use the image ${image}: it has no /bin/sh`, {
      hint: "Use an image with a shell; memoh image build makes the canonical one",
      cause: error,
    });
  }
}
