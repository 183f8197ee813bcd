// The container runtime on containerd: records, data and tasks of bots, one change per container at a time.
import type {
  ContainerDescription,
  DiskUsage,
  ImageStore,
  Limits,
  ObservedContainer,
  Runtime,
  RuntimeEvent,
  RuntimeInfo,
} from "../core/runtime.ts";
import type { Wait } from "../core/workspace.ts";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { SerialQueue } from "../lib/serial-queue.ts";
import { withDeadline } from "../lib/signal.ts";
import { chainIds } from "../oci/chain-id.ts";
import { type Machine, resourcesUpdate, runtimeSpec } from "../oci/spec.ts";
import type { ContainerdClient } from "./client.ts";
import { ContainerData, lostData } from "./container-data.ts";
import { Lease } from "./lease.ts";
import { daemonPidOf, readMachine } from "./machine.ts";
import { observe, observeAll } from "./observe.ts";
import { putRecord, recordOf, wantedRecord } from "./records.ts";
import { taskEvents } from "./task-events.ts";
import { taskOf } from "./task-state.ts";
import { Tasks } from "./tasks.ts";

export interface ContainerdRuntimeOptions {
  /** Stays the caller's to dispose. */
  readonly client: ContainerdClient;
  readonly images: ImageStore;
  readonly log: Logger;
  /** Name of the cgroup every bot's cgroup is in: the instance. */
  readonly cgroupParent: string;
  readonly snapshotter?: string;
  /** `runc`, or the name or path of what takes its place. */
  readonly runtimeBinary?: string;
  /**
   * Pid of the daemon, whose limits and capabilities bound the bots'. Absent: the daemon is asked, and our own stand in
   * when it cannot say.
   */
  readonly daemonPid?: () => Promise<number | undefined>;
}

const ENSURE_MS = 60_000;
const DELETE_MS = 30_000;
const RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

export class ContainerdRuntime implements Runtime {
  readonly images: ImageStore;
  readonly #client: ContainerdClient;
  readonly #options: ContainerdRuntimeOptions;
  readonly #data: ContainerData;
  readonly #tasks: Tasks;
  readonly #queue = new SerialQueue();

  constructor(options: ContainerdRuntimeOptions) {
    this.#options = options;
    this.#client = options.client;
    this.images = options.images;
    this.#data = new ContainerData(options.client, options.snapshotter ?? "overlayfs");
    this.#tasks = new Tasks(options.client, this.#data);
  }

  async info(wait?: Wait): Promise<RuntimeInfo> {
    const [{ version }, { uuid }] = await Promise.all([
      this.#client.version.version({}, { ...wait }),
      this.#client.introspection.server({}, { ...wait }),
    ]);
    return { name: "containerd", version, uuid };
  }

  async inspect(containerId: string, wait?: Wait): Promise<ObservedContainer | undefined> {
    return await observe(this.#client, containerId, wait?.signal);
  }

  async usage(containerId: string, wait?: Wait): Promise<DiskUsage | undefined> {
    const record = await recordOf(this.#client, containerId, wait?.signal);
    if (record === undefined) return undefined;
    const { snapshotter, snapshotKey: key } = record;
    const { size, inodes } = await this.#client.snapshots.usage({ snapshotter, key }, { ...wait });
    return { bytes: Number(size), inodes: Number(inodes) };
  }

  async list(wait?: Wait): Promise<ObservedContainer[]> {
    return await observeAll(this.#client, wait?.signal);
  }

  async ensureContainer(
    description: ContainerDescription,
    options: Wait & { readonly fresh: boolean },
  ): Promise<ObservedContainer> {
    const { id } = description;
    return await this.#serial(id, ENSURE_MS, `making the container ${id}`, options, async (signal) => {
      const present = await recordOf(this.#client, id, signal);
      await this.#requireNoTask(id, signal, { clear: "stopped" });
      const key = await this.#ensureData(description, present?.snapshotKey, options.fresh, signal);
      const spec = runtimeSpec(
        {
          args: description.args,
          env: description.env,
          hostname: description.hostname,
          netnsPath: description.netnsPath,
          cgroupsPath: `/${this.#options.cgroupParent}/${id}`,
          limits: description.limits,
          readOnlyMounts: description.mounts,
        },
        await this.#machine(),
      );
      const data = { snapshotter: this.#data.snapshotter, key };
      const wanted = wantedRecord(description, spec, data, this.#options.runtimeBinary ?? "runc");
      await putRecord(this.#client, present, wanted, signal);
      // A task whose record someone deleted under it is seen only now that there is one again.
      if (present === undefined) await this.#requireNoTask(id, signal);
      const observed = await observe(this.#client, id, signal);
      if (observed === undefined) {
        throw new Fault("aborted", `Cannot make the container ${id}: it was deleted meanwhile`);
      }
      return observed;
    });
  }

  async createTask(containerId: string, wait?: Wait): Promise<number> {
    return await this.#queue.run(
      containerId,
      async () => await this.#tasks.create(containerId, wait?.signal),
      wait?.signal,
    );
  }

  async startTask(containerId: string, wait?: Wait): Promise<void> {
    await this.#queue.run(
      containerId,
      async () => {
        await this.#tasks.start(containerId, wait?.signal);
      },
      wait?.signal,
    );
  }

  async stopTask(
    containerId: string,
    options: Wait & { readonly graceMs: number },
  ): Promise<number | undefined> {
    return await this.#queue.run(
      containerId,
      async () => await this.#tasks.stop(containerId, options.graceMs, options.signal),
      options.signal,
    );
  }

  async deleteContainer(containerId: string, wait?: Wait): Promise<void> {
    await this.#serial(containerId, DELETE_MS, `deleting ${containerId}`, wait, async (signal) => {
      // containerd itself would delete the record under a task and leave that an orphan.
      await this.#requireNoTask(containerId, signal);
      try {
        await this.#client.containers.delete({ id: containerId }, { signal });
      } catch (error) {
        if (!Fault.is(error, "not_found")) throw error;
      }
    });
  }

  async deleteData(containerId: string, wait?: Wait): Promise<void> {
    await this.#serial(
      containerId,
      DELETE_MS,
      `deleting the data of ${containerId}`,
      wait,
      async (signal) => {
        await this.#data.remove(containerId, signal);
      },
    );
  }

  async updateLimits(containerId: string, limits: Limits, wait?: Wait): Promise<void> {
    await this.#serial(containerId, DELETE_MS, `changing limits of ${containerId}`, wait, async (signal) => {
      const task = await taskOf(this.#client, containerId, signal);
      if (task.state === "none" || task.state === "stopped") {
        throw new Fault("failed_precondition", `Cannot change limits of ${containerId}: it does not run`, {
          hint: "They take effect at its next start",
        });
      }
      const update = resourcesUpdate(limits, await this.#machine());
      await this.#client.tasks.update(
        {
          containerId,
          resources: { typeUrl: RESOURCES_TYPE, value: new TextEncoder().encode(JSON.stringify(update)) },
        },
        { signal },
      );
    });
  }

  events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    return taskEvents(this.#client, this.#options.log, signal);
  }

  /** The key of the container's data, found or, when fresh, made from the image under a lease. */
  async #ensureData(
    description: ContainerDescription,
    recorded: string | undefined,
    fresh: boolean,
    signal: AbortSignal,
  ): Promise<string> {
    const owner = { containerId: description.id, botId: description.botId };
    for (let attempt = 1; ; attempt++) {
      const found = await this.#data.find(description.id, recorded, signal);
      // All of them: should the newest be the wrong one, the others are still there for a person to find.
      for (const each of found) await this.#data.adopt(each, owner, signal);
      if (found[0] !== undefined) return found[0].name;
      if (!fresh) throw lostData(recorded ?? description.id);
      await using lease = await Lease.create(this.#client, "create", { signal });
      const { diffIds } = await this.images.config(description.image, { signal });
      const parent = chainIds(diffIds).at(-1) ?? "";
      if (parent !== "" && (await this.#data.stat(parent, signal)) === undefined) {
        await this.images.unpack(description.image, { signal });
      }
      try {
        await this.#data.prepare(lease.services, owner, parent, signal);
        return description.id;
      } catch (error) {
        // Someone else made it, or the parent was collected since it was looked at.
        if (attempt > 1 || !Fault.is(error, "already_exists", "not_found")) throw error;
      }
    }
  }

  /** A task that has ended is no obstacle to a new start: with `clear` it is deleted. */
  async #requireNoTask(
    containerId: string,
    signal: AbortSignal,
    options: { readonly clear?: "stopped" } = {},
  ): Promise<void> {
    const { state } = await taskOf(this.#client, containerId, signal);
    if (state === "none") return;
    if (state === options.clear) {
      await this.#tasks.stop(containerId, 0, signal);
      return;
    }
    throw new Fault(
      "failed_precondition",
      `Cannot change the container ${containerId}: its task is ${state}`,
      {
        hint: "Stop it first",
      },
    );
  }

  async #machine(): Promise<Machine> {
    const pid = (await this.#options.daemonPid?.()) ?? (await daemonPidOf(this.#client));
    if (pid === undefined) return await readMachine("self");
    try {
      return await readMachine(pid);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" || errno === "ESRCH") return await readMachine("self");
      throw error;
    }
  }

  /** Runs a change after those before it on the same container, under a deadline of its own. */
  async #serial<T>(
    containerId: string,
    ms: number,
    what: string,
    wait: Wait | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return await this.#queue.run(
      containerId,
      async () => {
        using limit = withDeadline(wait?.signal, ms, what);
        return await work(limit.signal);
      },
      wait?.signal,
    );
  }
}
