// A container's data: the writable snapshot that belongs to it, found, made, adopted, and removed only on demand.

import { BOT_LABEL } from "../core/bot-id.ts";
import { type Info, Kind } from "../gen/proto/containerd/snapshots_pb.ts";
import type { Mount } from "../gen/proto/containerd/types_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { ContainerdClient, ContainerdServices } from "./client.ts";
import { records } from "./records.ts";

/** Keeps a snapshot from the garbage collector for as long as it is set. */
const ROOT_LABEL = "containerd.io/gc.root";
/** Names the container a writable snapshot belongs to, whatever its key. */
const CONTAINER_LABEL = "memoh.container_id";
/** overlayfs refuses more: https://docs.kernel.org/filesystems/overlayfs.html */
const MAX_LAYERS = 500;

/** Whose data it is. */
export interface DataOwner {
  readonly containerId: string;
  readonly botId: string;
}

export class ContainerData {
  readonly snapshotter: string;
  readonly #client: ContainerdClient;

  constructor(client: ContainerdClient, snapshotter: string) {
    this.#client = client;
    this.snapshotter = snapshotter;
  }

  /**
   * The writable snapshot of a container: the one its record names, the one with its id, else those that are labelled
   * with it or named in the original's way after a rollback (`<id>-active-<time>`), newest first.
   */
  async find(containerId: string, recorded: string | undefined, signal?: AbortSignal): Promise<Info[]> {
    for (const key of recorded === undefined || recorded === "" ? [containerId] : [recorded, containerId]) {
      const info = await this.stat(key, signal);
      if (info === undefined) continue;
      if (info.kind === Kind.ACTIVE) return [info];
      throw new Fault("failed_precondition", `Cannot use the snapshot ${key}: it is not writable`, {
        hint: "Something else made a snapshot of this name; rename or remove it",
      });
    }
    return await this.#owned(containerId, signal);
  }

  async stat(key: string, signal?: AbortSignal): Promise<Info | undefined> {
    try {
      return (await this.#client.snapshots.stat({ snapshotter: this.snapshotter, key }, { signal })).info;
    } catch (error) {
      if (Fault.is(error, "not_found")) return undefined;
      throw error;
    }
  }

  /** Makes a writable snapshot with the container's id on a parent. @throws Fault not_found when the parent is missing */
  async prepare(
    services: ContainerdServices,
    owner: DataOwner,
    parent: string,
    signal?: AbortSignal,
  ): Promise<void> {
    await services.snapshots.prepare(
      { snapshotter: this.snapshotter, key: owner.containerId, parent, labels: labelsOf(owner) },
      { signal },
    );
  }

  /** Makes a snapshot safe from the collector and its owner known. */
  async adopt(info: Info, owner: DataOwner, signal?: AbortSignal): Promise<void> {
    const wanted = labelsOf(owner);
    if (
      info.labels[ROOT_LABEL] !== undefined &&
      info.labels[BOT_LABEL] === owner.botId &&
      info.labels[CONTAINER_LABEL] === owner.containerId
    ) {
      return;
    }
    await this.#client.snapshots.update(
      {
        snapshotter: this.snapshotter,
        info: { name: info.name, labels: { ...info.labels, ...wanted } },
        updateMask: { paths: ["labels"] },
      },
      { signal },
    );
  }

  /** What a task's root file system is mounted from. @throws Fault data_loss, or failed_precondition when too deep */
  async mounts(snapshotter: string, key: string, signal?: AbortSignal): Promise<Mount[]> {
    let mounts: Mount[];
    try {
      ({ mounts } = await this.#client.snapshots.mounts({ snapshotter, key }, { signal }));
    } catch (error) {
      if (Fault.is(error, "not_found")) throw lostData(key, error);
      throw error;
    }
    const layers = layersOf(mounts);
    if (layers > MAX_LAYERS) {
      throw new Fault(
        "failed_precondition",
        `Cannot mount the snapshot ${key}: it has ${layers} layers and overlayfs takes ${MAX_LAYERS}`,
        { hint: "Flatten the versions of this bot" },
      );
    }
    return mounts;
  }

  /**
   * Removes the container's writable snapshots. Nothing there is success.
   * @throws Fault failed_precondition when a container record or a task still uses one
   */
  async remove(containerId: string, signal?: AbortSignal): Promise<void> {
    const direct = await this.stat(containerId, signal);
    const found = new Map((await this.#owned(containerId, signal)).map((info) => [info.name, info]));
    if (direct?.kind === Kind.ACTIVE) found.set(direct.name, direct);
    if (found.size === 0) return;
    const containers = await records(this.#client, [], signal);
    const user = containers.find(
      (each) => each.snapshotter === this.snapshotter && found.has(each.snapshotKey),
    );
    if (user !== undefined) {
      throw new Fault(
        "failed_precondition",
        `Cannot remove the data of ${containerId}: the container ${user.id} uses it`,
        { hint: "Delete the container first" },
      );
    }
    // A task whose record someone deleted under it shows only in the list of all.
    const { tasks } = await this.#client.tasks.list({}, { signal });
    if (tasks.some((task) => task.id === containerId || task.containerId === containerId)) {
      throw new Fault(
        "failed_precondition",
        `Cannot remove the data of ${containerId}: a task without a container record runs on it`,
        { hint: "Start the bot to take the task over, then stop and delete it" },
      );
    }
    for (const key of found.keys()) {
      try {
        await this.#client.snapshots.remove({ snapshotter: this.snapshotter, key }, { signal });
      } catch (error) {
        if (!Fault.is(error, "not_found")) throw error;
      }
    }
  }

  /** Writable snapshots that name the container, newest first. */
  async #owned(containerId: string, signal?: AbortSignal): Promise<Info[]> {
    const filters = [
      `kind==active,labels."${CONTAINER_LABEL}"=="${containerId}"`,
      `kind==active,name~="^${containerId.replaceAll(".", "[.]")}-active-"`,
    ];
    const found: Info[] = [];
    for await (const { info } of this.#client.snapshots.list(
      { snapshotter: this.snapshotter, filters },
      { signal },
    )) {
      found.push(...info);
    }
    return found.sort((a, b) => (madeAt(a) < madeAt(b) ? 1 : -1));
  }
}

function labelsOf(owner: DataOwner): Record<string, string> {
  return {
    [ROOT_LABEL]: new Date().toISOString(),
    [BOT_LABEL]: owner.botId,
    [CONTAINER_LABEL]: owner.containerId,
  };
}

/** Nanoseconds since 1970. */
function madeAt(info: Info): bigint {
  return (info.createdAt?.seconds ?? 0n) * 1_000_000_000n + BigInt(info.createdAt?.nanos ?? 0);
}

/** Lower directories of an overlay mount; other mounts have one. */
function layersOf(mounts: readonly Mount[]): number {
  const lower = mounts.flatMap((mount) => mount.options).find((option) => option.startsWith("lowerdir="));
  return lower === undefined ? 1 : lower.split(":").length;
}

/** The Fault for data that was there and is gone: only a person can decide what now. */
export function lostData(key: string, cause?: unknown): Fault {
  return new Fault("data_loss", `Cannot find the data of this bot: the snapshot ${key} is gone`, {
    cause,
    hint: "Restore it from a backup or version; memoh will not replace it by an empty one",
  });
}
