// The contract of a container runtime: images, containers, tasks. Every call is idempotent and decides by observed state.
import type { Wait } from "./workspace.ts";

/** Limits of one workspace. Absent means the default of the configuration. */
export interface Limits {
  /** Bytes. */
  readonly memory?: number;
  readonly pids?: number;
  /** Cores, fractions allowed. */
  readonly cpus?: number;
}

/** A file or directory of the host that memoh itself wrote, mounted read-only. */
export interface ReadOnlyMount {
  readonly source: string;
  readonly target: string;
}

/** Everything a container is made from. */
export interface ContainerDescription {
  readonly id: string;
  readonly botId: string;
  /** Fully qualified image reference, present in the runtime. */
  readonly image: string;
  readonly hostname: string;
  /** Path of the network namespace the task joins. */
  readonly netnsPath: string;
  readonly limits: Limits;
  readonly mounts: readonly ReadOnlyMount[];
  /** What runs: init and agent. The image's entrypoint is not used. */
  readonly args: readonly string[];
  /** Environment of the agent. The image's environment is handed to commands (see imageEnv). */
  readonly env: Readonly<Record<string, string>>;
}

/** Disk space of one writable snapshot. */
export interface DiskUsage {
  readonly bytes: number;
  readonly inodes: number;
}

export type TaskState = "none" | "created" | "running" | "paused" | "stopped";

/** A container as it is, not as it should be. */
export interface ObservedContainer {
  readonly id: string;
  readonly botId: string | undefined;
  readonly image: string;
  readonly snapshotKey: string;
  /** False when the record's snapshot has vanished. */
  readonly snapshotExists: boolean;
  readonly task: TaskState;
  /** Process id of init in the host's pid namespace; 0 without a task. */
  readonly pid: number;
  /** When stopped. */
  readonly exitStatus: number | undefined;
  readonly exitedAt: Date | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface RuntimeInfo {
  readonly name: string;
  readonly version: string;
  /** Identity of this very daemon and its store: another one later is an error. */
  readonly uuid: string;
}

export type RuntimeEvent =
  | { readonly kind: "start"; readonly containerId: string; readonly pid: number }
  | { readonly kind: "exit"; readonly containerId: string; readonly exitStatus: number; readonly at: Date }
  | { readonly kind: "oom"; readonly containerId: string }
  | { readonly kind: "delete"; readonly containerId: string }
  /** The stream stands, for the first time or after it was broken: what happened before is unknown, look again. */
  | { readonly kind: "resync" };

/** An image in the runtime. */
export interface ImageInfo {
  readonly name: string;
  /** Digest of the manifest or index. */
  readonly digest: string;
  /** Bytes of its compressed content. */
  readonly size: number;
  readonly platform: string;
  readonly createdAt: Date;
}

/** What is known of an image beyond its name. */
export interface ImageConfig {
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly diffIds: readonly string[];
}

export interface TransferProgress {
  /** `resolve`, `layer`, `unpack`, `done`… */
  readonly phase: string;
  /** Digest or name the figures belong to. */
  readonly item?: string;
  readonly done?: number;
  readonly total?: number;
}

export type ProgressListener = (progress: TransferProgress) => void;

export interface ImageStore {
  list(wait?: Wait): Promise<ImageInfo[]>;
  /** Undefined when the image is not there. */
  get(ref: string, wait?: Wait): Promise<ImageInfo | undefined>;
  config(ref: string, wait?: Wait): Promise<ImageConfig>;
  /** Imports an OCI or docker archive and unpacks it. @returns names of the images in it */
  import(
    archive: string,
    options?: Wait & { readonly name?: string; readonly onProgress?: ProgressListener },
  ): Promise<ImageInfo[]>;
  /** Pulls and unpacks; a present, complete image is left as it is unless `always`. */
  pull(
    ref: string,
    options?: Wait & { readonly always?: boolean; readonly onProgress?: ProgressListener },
  ): Promise<ImageInfo>;
  remove(ref: string, wait?: Wait): Promise<boolean>;
  /** Makes the image's snapshots present (an image whose unpack was collected is unpacked again). */
  unpack(ref: string, wait?: Wait): Promise<void>;
}

export interface Runtime {
  readonly images: ImageStore;
  info(wait?: Wait): Promise<RuntimeInfo>;
  inspect(containerId: string, wait?: Wait): Promise<ObservedContainer | undefined>;
  /** Every container of memoh's namespace with the bot label, by id. */
  list(wait?: Wait): Promise<ObservedContainer[]>;
  /**
   * Makes the container record and its writable snapshot exist and match the description. An existing snapshot of that
   * container is adopted, never removed; a missing one is made from the image only when `fresh`.
   * @throws Fault failed_precondition when a task runs, data_loss when the snapshot is gone and `fresh` is false
   */
  ensureContainer(
    description: ContainerDescription,
    options: Wait & { readonly fresh: boolean },
  ): Promise<ObservedContainer>;
  /** Makes the task exist (removing a stopped one first) without running it. @returns its pid */
  createTask(containerId: string, wait?: Wait): Promise<number>;
  /** Runs the created task. A running one is success. */
  startTask(containerId: string, wait?: Wait): Promise<void>;
  /** TERM, `graceMs`, KILL, wait, delete the task. No task is success. @returns the exit status if there was a task */
  stopTask(containerId: string, options: Wait & { readonly graceMs: number }): Promise<number | undefined>;
  /** Removes the record; stops nothing. @throws Fault failed_precondition when a task exists */
  deleteContainer(containerId: string, wait?: Wait): Promise<void>;
  /** Removes the container's writable snapshot and with it the bot's data. @throws Fault when a container uses it */
  deleteData(containerId: string, wait?: Wait): Promise<void>;
  /** What the container's writable snapshot takes on disk; undefined without one. Walks it, so not for hot paths. */
  usage(containerId: string, wait?: Wait): Promise<DiskUsage | undefined>;
  /** Changes limits of a running task. */
  updateLimits(containerId: string, limits: Limits, wait?: Wait): Promise<void>;
  /** Task events of memoh's namespace until the signal aborts; reconnects by itself. */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
}
