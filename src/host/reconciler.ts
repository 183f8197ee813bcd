// The reconciler: intents in, converged workspaces out. One serial queue per bot, retries that back off and never end.
import type { BotRecord, LastError, WorkspaceRecord } from "../core/bot.ts";
import type { Intent, IntentKind } from "../core/intent.ts";
import type { Network } from "../core/network.ts";
import type { Runtime, RuntimeEvent, TaskState } from "../core/runtime.ts";
import type { Store } from "../core/store.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { SerialQueue } from "../lib/serial-queue.ts";
import { abortable, sleep } from "../lib/signal.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { runPlan, StepFailure } from "./steps.ts";

/** What the reconciler works with. */
export interface ReconcilerParts {
  readonly lifecycle: Lifecycle;
  readonly runtime: Runtime;
  readonly network: Network;
  readonly store: () => Store;
  readonly log: Logger;
}

/** A request for a change. */
export interface IntentRequest {
  readonly botId: string;
  readonly kind: IntentKind;
  readonly requestedBy: string;
  readonly idempotencyKey?: string | undefined;
}

/** Bots worked on at once when many need it (at a start of the host). */
const PARALLEL = 8;
const SWEEP_MS = 30_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 5 * 60_000;
const RESTART_PAUSES_MS = [300, 1_000, 2_000, 4_000];

/** Carries out intents and keeps workspaces as they are desired. */
export class Reconciler {
  readonly #parts: ReconcilerParts;
  readonly #queue = new SerialQueue();
  readonly #waiting = new Map<string, PromiseWithResolvers<Intent>>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #stopping = new AbortController();
  readonly #work = new Set<Promise<void>>();

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
  }

  /** Records an intent and wakes the bot. */
  async submit(request: IntentRequest, signal?: AbortSignal): Promise<Intent> {
    const intent = await this.#parts.store().intents.record(request, { signal });
    if (intent.state === "pending" || intent.state === "running") {
      if (!this.#waiting.has(intent.id)) this.#waiting.set(intent.id, Promise.withResolvers<Intent>());
      this.wake(request.botId);
    }
    return intent;
  }

  /** Waits for an intent's outcome. A caller that goes away changes nothing. @throws the Fault it failed with */
  async outcome(intent: Intent, signal?: AbortSignal): Promise<Intent> {
    const waiting = this.#waiting.get(intent.id);
    const final = waiting === undefined ? intent : await abortable(waiting.promise, signal);
    if (final.error !== undefined) throw faultOf(final.error);
    return final;
  }

  /** Has the bot looked at soon. */
  wake(botId: string): void {
    if (this.#stopping.signal.aborted) return;
    clearTimeout(this.#timers.get(botId));
    this.#timers.delete(botId);
    this.#track(this.#queue.run(botId, () => this.#converge(botId)));
  }

  /** Takes over what is there, then follows events and sweeps until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => {
      this.#stopping.abort(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    await Promise.all([this.#follow(signal), this.#sweepForever(signal)]);
  }

  /** Waits for the steps under way to end; their bots go on at the next start. */
  async drain(): Promise<void> {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    await Promise.allSettled(this.#work);
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error: unknown) => {
        if (!this.#stopping.signal.aborted) this.#parts.log.error({ err: error }, "reconciling failed");
      })
      .finally(() => {
        this.#work.delete(tracked);
      });
    this.#work.add(tracked);
  }

  /** Everything there is to do for one bot now. */
  async #converge(botId: string): Promise<void> {
    const signal = this.#stopping.signal;
    if (signal.aborted) return;
    try {
      const open = (await this.#parts.store().intents.open({ signal })).filter(
        (intent) => intent.botId === botId,
      );
      for (const intent of open) await this.#carryOut(intent, signal);
      if (open.length === 0) await this.#restore(botId, signal);
    } catch (error) {
      if (signal.aborted) return;
      // The store or containerd is down: its part heals it, this bot is looked at again then.
      this.#parts.log.warn({ botId, err: error }, "cannot reconcile now");
      this.#later(botId, FIRST_RETRY_MS);
    }
  }

  async #carryOut(intent: Intent, signal: AbortSignal): Promise<void> {
    const store = this.#parts.store();
    const [bot, workspace] = await Promise.all([
      store.bots.get(intent.botId, { signal }),
      store.workspaces.get(intent.botId, { signal }),
    ]);
    if (bot === undefined || workspace === undefined) {
      await this.#finish(intent, undefined, signal);
      return;
    }
    await store.intents.begin(intent.id, { signal });
    // A bot that was made to stay stopped has no container before its first start.
    const desired = intent.kind === "create" ? workspace.desired : DESIRED[intent.kind];
    const current =
      workspace.desired === desired ? workspace : await store.workspaces.desire(bot.id, desired, { signal });
    const journal = async (step: string, ms: number) => {
      this.#parts.log.debug({ bot: bot.name, step, ms: Math.round(ms) }, "step done");
      await store.intents.stepDone(intent.id, step, { signal });
    };
    try {
      await this.#reachSoon(intent.kind, bot, current, signal, journal);
      await store.events.add(
        {
          botId: bot.id,
          containerId: workspace.containerId,
          type: `${intent.kind}_done`,
          payload: { intent: intent.id },
        },
        { signal },
      );
      await this.#finish(intent, undefined, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      const lastError = await this.#failed(bot, current, error, signal);
      await this.#finish(intent, lastError, signal);
    }
  }

  /** A part that is just being restarted (containerd after a crash) is not worth an error: it is waited for shortly. */
  async #reachSoon(
    kind: IntentKind,
    bot: BotRecord,
    workspace: WorkspaceRecord,
    signal: AbortSignal,
    journal: (step: string, ms: number) => Promise<void>,
  ): Promise<void> {
    for (const pause of RESTART_PAUSES_MS) {
      try {
        await this.#reach(kind, bot, workspace, signal, journal);
        return;
      } catch (error) {
        const fault = error instanceof StepFailure ? error.fault : error;
        if (signal.aborted || !Fault.is(fault, "unavailable")) throw error;
        this.#parts.log.warn({ bot: bot.name, err: fault }, "trying again");
        await sleep(pause, signal);
      }
    }
    await this.#reach(kind, bot, workspace, signal, journal);
  }

  async #reach(
    kind: IntentKind,
    bot: BotRecord,
    workspace: WorkspaceRecord,
    signal: AbortSignal,
    journal: (step: string, ms: number) => Promise<void>,
  ): Promise<void> {
    const { lifecycle } = this.#parts;
    switch (kind) {
      case "create":
      case "start": {
        if (workspace.desired !== "running") {
          await this.#parts.store().workspaces.observe(bot.id, { phase: "stopped" }, { signal });
          return;
        }
        const trouble =
          workspace.bootId === undefined ? "not running" : await lifecycle.trouble(workspace, signal);
        if (trouble !== undefined) await runPlan(lifecycle.startPlan(bot, workspace), signal, journal);
        return;
      }
      case "restart":
        await runPlan(
          [...lifecycle.stopPlan(workspace), ...lifecycle.startPlan(bot, workspace)],
          signal,
          journal,
        );
        return;
      case "stop":
        await runPlan(lifecycle.stopPlan(workspace), signal, journal);
        return;
      case "delete_container":
      case "delete_bot":
        await runPlan(lifecycle.removePlan(workspace, kind === "delete_bot"), signal, journal);
        return;
    }
  }

  /** Without an intent: what is desired is compared with what is. */
  async #restore(botId: string, signal: AbortSignal): Promise<void> {
    const store = this.#parts.store();
    const [bot, workspace] = await Promise.all([
      store.bots.get(botId, { signal }),
      store.workspaces.get(botId, { signal }),
    ]);
    if (bot === undefined || workspace === undefined) return;
    if (workspace.lastError?.retryable === false) return;
    const due = workspace.nextAttemptAt?.getTime() ?? 0;
    if (due > Date.now()) {
      this.#later(botId, due - Date.now());
      return;
    }
    const nothing = () => Promise.resolve();
    try {
      if (workspace.desired === "running") {
        const trouble = await this.#patientTrouble(workspace, signal);
        if (trouble === undefined) {
          if (workspace.phase !== "running") {
            await store.workspaces.observe(
              botId,
              { phase: "running", lastError: null, attempts: 0 },
              { signal },
            );
          }
          return;
        }
        this.#parts.log.warn({ botId, trouble }, "bot is not running as desired");
        await store.events.add(
          { botId, containerId: workspace.containerId, type: "restart", payload: { reason: trouble } },
          { signal },
        );
        await runPlan(this.#parts.lifecycle.startPlan(bot, workspace), signal, nothing);
      } else if (workspace.desired === "stopped" && workspace.phase !== "stopped") {
        await runPlan(this.#parts.lifecycle.stopPlan(workspace), signal, nothing);
      }
    } catch (error) {
      // Only a step that failed says something about the bot; a containerd or store that is down does not.
      if (signal.aborted || !(error instanceof StepFailure)) throw error;
      await this.#failed(bot, workspace, error, signal);
    }
  }

  /** A live task is never torn down because of one lost answer: the agent is asked for a while. */
  async #patientTrouble(workspace: WorkspaceRecord, signal: AbortSignal): Promise<string | undefined> {
    let trouble = await this.#parts.lifecycle.trouble(workspace, signal);
    for (let attempt = 0; trouble !== undefined && attempt < 10; attempt++) {
      const observed = await this.#parts.runtime.inspect(workspace.containerId, { signal });
      if (observed?.task !== "running" || workspace.bootId === undefined) return trouble;
      await sleep(1_000, signal);
      trouble = await this.#parts.lifecycle.trouble(workspace, signal);
    }
    return trouble;
  }

  async #failed(
    bot: BotRecord,
    workspace: WorkspaceRecord,
    error: unknown,
    signal: AbortSignal,
  ): Promise<LastError> {
    const failure =
      error instanceof StepFailure ? error : new StepFailure("converge", Fault.from(error), true);
    const lastError = failure.toLastError(new Date());
    const attempts = workspace.attempts + 1;
    const pause = backoff(attempts);
    this.#parts.log.error({ bot: bot.name, step: failure.step, err: failure.fault, attempts }, "step failed");
    await this.#parts.store().workspaces.observe(
      bot.id,
      {
        phase: "failed",
        lastError,
        attempts,
        nextAttemptAt: failure.retryable ? new Date(Date.now() + pause) : null,
      },
      { signal },
    );
    if (failure.retryable) this.#later(bot.id, pause);
    return lastError;
  }

  async #finish(intent: Intent, error: LastError | undefined, signal: AbortSignal): Promise<void> {
    await this.#parts.store().intents.finish(intent.id, error, { signal });
    const final: Intent = {
      ...intent,
      state: error === undefined ? "done" : "failed",
      error,
      finishedAt: new Date(),
    };
    this.#waiting.get(intent.id)?.resolve(final);
    this.#waiting.delete(intent.id);
  }

  #later(botId: string, ms: number): void {
    if (this.#stopping.signal.aborted) return;
    clearTimeout(this.#timers.get(botId));
    this.#timers.set(
      botId,
      setTimeout(() => {
        this.wake(botId);
      }, ms),
    );
  }

  async #follow(signal: AbortSignal): Promise<void> {
    try {
      for await (const event of this.#parts.runtime.events(signal)) await this.#onEvent(event, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #onEvent(event: RuntimeEvent, signal: AbortSignal): Promise<void> {
    if (event.kind === "resync") {
      await this.#sweep(signal, false);
      return;
    }
    if (event.kind === "start" || event.kind === "delete") return;
    const workspace = await this.#parts.store().workspaces.getByContainer(event.containerId, { signal });
    if (workspace === undefined) return;
    if (event.kind === "oom") {
      const limit = workspace.limits.memory;
      await this.#parts.store().events.add(
        {
          botId: workspace.botId,
          containerId: event.containerId,
          type: "oom",
          payload: { limit_bytes: limit ?? null },
        },
        { signal },
      );
      return;
    }
    if (workspace.desired === "running" && workspace.phase === "running") this.wake(workspace.botId);
  }

  async #sweepForever(signal: AbortSignal): Promise<void> {
    try {
      // The first one asks every agent; later ones compare states, so that idle connections may close.
      for (let first = true; ; first = false) {
        await this.#sweep(signal, first);
        await sleep(SWEEP_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Looks at the bots that are not as desired, or at all of them, a few at a time. */
  async #sweep(signal: AbortSignal, all: boolean): Promise<void> {
    try {
      const store = this.#parts.store();
      const [workspaces, open, containers] = await Promise.all([
        store.workspaces.list({ signal }),
        store.intents.open({ signal }),
        this.#parts.runtime.list({ signal }),
      ]);
      const tasks = new Map(containers.map((container) => [container.id, container.task]));
      const due = workspaces.filter(
        (workspace) => all || !isSettled(workspace, tasks.get(workspace.containerId) ?? "none"),
      );
      const botIds = [...new Set([...open.map((intent) => intent.botId), ...due.map((each) => each.botId)])];
      const next = botIds[Symbol.iterator]();
      const worker = async () => {
        for (const botId of next) await this.#queue.run(botId, () => this.#converge(botId), signal);
      };
      await Promise.all(Array.from({ length: PARALLEL }, worker));
      // A namespace or lease whose workspace is gone was left by a crash.
      const live = {
        has: async (id: string) =>
          (tasks.get(id) ?? "none") !== "none" ||
          (await store.workspaces.getByContainer(id, { signal })) !== undefined,
      };
      for (const { what } of await this.#parts.network.reclaim(live, { signal })) {
        this.#parts.log.warn({ what }, "reclaimed what a removed workspace had left");
      }
    } catch (error) {
      if (!signal.aborted) this.#parts.log.warn({ err: error }, "cannot sweep now");
    }
  }
}

/** Whether what is recorded agrees with what is desired and with the task. */
function isSettled(workspace: WorkspaceRecord, task: TaskState): boolean {
  if (workspace.desired === "running") return workspace.phase === "running" && task === "running";
  return workspace.desired === "stopped" && workspace.phase === "stopped" && task === "none";
}

const DESIRED = {
  create: "running",
  start: "running",
  restart: "running",
  stop: "stopped",
  delete_container: "absent",
  delete_bot: "absent",
} as const satisfies Record<IntentKind, WorkspaceRecord["desired"]>;

/** Doubles from one second to five minutes, with a fifth of jitter. */
function backoff(attempts: number): number {
  const base = Math.min(FIRST_RETRY_MS * 2 ** Math.min(attempts - 1, 20), LAST_RETRY_MS);
  return base * (0.9 + Math.random() * 0.2);
}

/** The error of a failed intent, as its caller sees it. */
function faultOf(error: LastError): Fault {
  return new Fault(error.code, error.message, { hint: error.hint });
}
