// Tasks in the order that loses nothing: made on a clean slate, started once, ended by TERM, then KILL, then deleted.
import { Fault } from "../lib/fault.ts";
import { abortable, reasonOf, sleep, throwIfAborted, withDeadline } from "../lib/signal.ts";
import type { ContainerdClient } from "./client.ts";
import type { ContainerData } from "./container-data.ts";
import { deleteRuntimeState, endShim, type ShimName } from "./leftovers.ts";
import { recordOf, runtimeBinaryOf } from "./records.ts";
import { type TaskView, taskOf } from "./task-state.ts";

const SIGTERM = 15;
const SIGKILL = 9;
/** Of everything a create may need: one that hangs, its clean-up, one more. */
const CREATE_MS = 60_000;
const START_MS = 30_000;
/** From KILL to a deleted task, with room for a restart of the daemon. */
const END_MS = 30_000;
const CLEAN_MS = 15_000;
/** Between looks while the daemon is away or still tidying up after a shim. */
const PAUSE_MS = 100;

/** How long the steps of a change may take before more is done, milliseconds. */
export interface TaskTimes {
  /** One create. It takes 70 ms, and seconds on a machine that is flooded. */
  readonly createMs: number;
  /** What is left of an earlier task goes by itself. */
  readonly settleMs: number;
  /** From KILL to the end; after it the shim hangs. */
  readonly killMs: number;
}

const TIMES: TaskTimes = { createMs: 20_000, settleMs: 10_000, killMs: 10_000 };

/**
 * The tasks of one namespace. Callers run one change per container at a time. A state that does not fit is `aborted`:
 * something happened in between, and the whole sequence again, from the look at what is, mends it.
 *
 * A caller's abort is heeded between calls: create, start and delete themselves are never cut short, because containerd
 * leaves a shim without a task behind when they are (seen with 1.6 and 2.1).
 */
export class Tasks {
  readonly #client: ContainerdClient;
  readonly #data: ContainerData;
  readonly #times: TaskTimes;
  /** Tasks made here and not started yet, with the record they were made from. */
  readonly #created = new Map<string, { pid: number; version: string }>();

  constructor(client: ContainerdClient, data: ContainerData, times: TaskTimes = TIMES) {
    this.#client = client;
    this.#data = data;
    this.#times = times;
  }

  /** Makes the task without running it. A task made here from the same record is returned as it is. */
  async create(containerId: string, signal?: AbortSignal): Promise<number> {
    using limit = withDeadline(signal, CREATE_MS, `creating the task of ${containerId}`);
    const container = await recordOf(this.#client, containerId, limit.signal);
    if (container === undefined) {
      throw new Fault("aborted", `Cannot create the task of ${containerId}: there is no such container`, {
        hint: "Start the bot: that makes its container again around its data",
      });
    }
    const version = `${container.updatedAt?.seconds}.${container.updatedAt?.nanos}`;
    const task = await taskOf(this.#client, containerId, limit.signal);
    if (task.state === "running" || task.state === "paused") {
      throw new Fault("aborted", `Cannot create the task of ${containerId}: one is ${task.state}`, {
        hint: "Stop it first",
      });
    }
    const mine = this.#created.get(containerId);
    if (task.state === "created" && mine?.pid === task.pid && mine.version === version) return task.pid;
    this.#created.delete(containerId);
    if (task.state !== "none") await this.#remove(containerId, task, 0, limit.signal);
    const rootfs = await this.#data.mounts(container.snapshotter, container.snapshotKey, limit.signal);
    let patientUntil = Date.now() + this.#times.settleMs;
    for (let cleared = false; ; ) {
      throwIfAborted(limit.signal);
      try {
        const { pid } = await this.#client.tasks.create(
          { containerId, rootfs },
          { timeoutMs: this.#times.createMs },
        );
        if (limit.signal.aborted) throw reasonOf(limit.signal);
        this.#created.set(containerId, { pid, version });
        return pid;
      } catch (error) {
        const others = await this.#afterFailedCreate(containerId, error);
        if (others !== undefined) return others;
        const hangs = Fault.is(error, "deadline_exceeded");
        if (!hangs && !Fault.is(error, "already_exists", "unavailable")) throw error;
        // A killed shim, a lost race and a create that was cut short leave remains, which containerd removes within
        // moments. Those it has forgotten stay for ever: a shim is used again and hangs, the runtime says "exists".
        if (hangs || Date.now() > patientUntil) {
          if (cleared) throw error;
          cleared = true;
          await endShim(this.#name(containerId));
          await deleteRuntimeState(this.#name(containerId), runtimeBinaryOf(container));
          patientUntil = Date.now() + this.#times.settleMs;
        }
        await sleep(PAUSE_MS, limit.signal);
      }
    }
  }

  /**
   * Decides by state what a failed create means. Someone else's task counts as made; one whose answer was lost or
   * unwanted is taken away again, so that a failure leaves nothing.
   * @returns the pid of someone else's task
   */
  async #afterFailedCreate(containerId: string, error: unknown): Promise<number | undefined> {
    using limit = withDeadline(undefined, CLEAN_MS, `looking after the task of ${containerId}`);
    const task = await this.#settled(containerId, limit.signal);
    if (task.state !== "created") return undefined;
    if (Fault.is(error, "already_exists")) return task.pid;
    await this.#remove(containerId, task, 0, limit.signal);
    return undefined;
  }

  /** Runs the created task. A running one is success, a paused one goes on. */
  async start(containerId: string, signal?: AbortSignal): Promise<void> {
    using limit = withDeadline(signal, START_MS, `starting the task of ${containerId}`);
    this.#created.delete(containerId);
    const task = await taskOf(this.#client, containerId, limit.signal);
    if (task.state === "running") return;
    if (task.state === "paused") {
      await this.#client.tasks.resume({ containerId }, { signal: limit.signal });
      return;
    }
    if (task.state !== "created") {
      throw new Fault("aborted", `Cannot start the task of ${containerId}: its state is ${task.state}`, {
        hint: "Create it first",
      });
    }
    try {
      await this.#client.tasks.start({ containerId }, { timeoutMs: START_MS });
    } catch (error) {
      throwIfAborted(limit.signal);
      const after = await this.#settled(containerId, limit.signal);
      if (after.state !== "running") throw error;
    }
  }

  /** TERM, grace, KILL, delete. @returns the exit status when there was a task and it is known */
  async stop(containerId: string, graceMs: number, signal?: AbortSignal): Promise<number | undefined> {
    using limit = withDeadline(signal, graceMs + END_MS, `stopping the task of ${containerId}`);
    this.#created.delete(containerId);
    const task = await taskOf(this.#client, containerId, limit.signal);
    if (task.state === "none") return undefined;
    return await this.#remove(containerId, task, graceMs, limit.signal);
  }

  /** Ends a task if it has not ended and deletes it. */
  async #remove(
    containerId: string,
    task: TaskView,
    graceMs: number,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const status =
      task.state === "stopped" ? task.exitStatus : await this.#end(containerId, task, graceMs, signal);
    return (await this.#delete(containerId, signal)) ?? status;
  }

  async #end(
    containerId: string,
    task: TaskView,
    graceMs: number,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const over = new AbortController();
    const both = AbortSignal.any([signal, over.signal]);
    // Asked before the first signal, so that the end cannot be missed.
    const end = this.#ended(containerId, both);
    const killed = async (number: number) => {
      await this.#insist(containerId, both, async (options) => {
        await this.#client.tasks.kill({ containerId, signal: number }, options);
      });
      return await end;
    };
    // It may fail while a signal is being sent; it is awaited below.
    end.catch(() => undefined);
    try {
      // A frozen task gets no signal before it thaws.
      if (task.state === "paused") {
        await this.#insist(containerId, signal, async (options) => {
          await this.#client.tasks.resume({ containerId }, options);
        });
      }
      if (task.state !== "created" && graceMs > 0) {
        const ended = await within(killed(SIGTERM), graceMs, signal);
        if (ended !== undefined) return ended.value;
      }
      const ended = await within(killed(SIGKILL), this.#times.killMs, signal);
      if (ended !== undefined) return ended.value;
      // Nothing answers KILL but a shim that hangs.
      await endShim(this.#name(containerId));
      return await end;
    } finally {
      over.abort();
    }
  }

  #name(containerId: string): ShimName {
    const { socket, namespace } = this.#client;
    return { socket, namespace, containerId };
  }

  /** Resolves once the task has ended or is gone, over restarts of the daemon and deaths of the shim. */
  async #ended(containerId: string, signal: AbortSignal): Promise<number | undefined> {
    for (;;) {
      try {
        const { exitStatus } = await this.#client.tasks.wait(
          { containerId },
          { signal, timeoutMs: undefined },
        );
        return exitStatus;
      } catch (error) {
        throwIfAborted(signal);
        const task = await this.#settled(containerId, signal);
        if (task.state === "none" || task.state === "stopped") return task.exitStatus;
        if (!Fault.is(error, "unavailable", "not_found", "deadline_exceeded")) throw error;
      }
      await sleep(PAUSE_MS, signal);
    }
  }

  async #delete(containerId: string, signal: AbortSignal): Promise<number | undefined> {
    let status: number | undefined;
    await this.#insist(containerId, signal, async () => {
      const deleted = await this.#client.tasks.delete({ containerId }, { timeoutMs: END_MS });
      status = deleted.exitStatus;
    });
    return status;
  }

  /** Does something to a task that may be gone, which is success, or whose daemon may be away, which is waited for. */
  async #insist(
    containerId: string,
    signal: AbortSignal,
    act: (options: { signal: AbortSignal }) => Promise<unknown>,
  ): Promise<void> {
    for (;;) {
      try {
        await act({ signal });
        return;
      } catch (error) {
        throwIfAborted(signal);
        if (Fault.is(error, "not_found")) return;
        if (!Fault.is(error, "unavailable")) throw error;
        if ((await this.#settled(containerId, signal)).state === "none") return;
      }
      await sleep(PAUSE_MS, signal);
    }
  }

  /** The state, waiting for a daemon that is away. */
  async #settled(containerId: string, signal: AbortSignal): Promise<TaskView> {
    for (;;) {
      try {
        return await taskOf(this.#client, containerId, signal);
      } catch (error) {
        throwIfAborted(signal);
        if (!Fault.is(error, "unavailable")) throw error;
      }
      await sleep(PAUSE_MS, signal);
    }
  }
}

/** The value when it comes in time, else undefined. */
async function within<T>(
  promise: Promise<T>,
  ms: number,
  signal: AbortSignal,
): Promise<{ value: T } | undefined> {
  using limit = withDeadline(signal, ms, "grace");
  try {
    return { value: await abortable(promise, limit.signal) };
  } catch (error) {
    if (signal.aborted || !limit.signal.aborted) throw error;
    return undefined;
  }
}
