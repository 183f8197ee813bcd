// Layers made into snapshots, each named by its chain id and compared with the image config's diff id.
import { randomBytes } from "node:crypto";
import type { ProgressListener } from "../../core/runtime.ts";
import { Kind } from "../../gen/proto/containerd/snapshots_pb.ts";
import type { Mount } from "../../gen/proto/containerd/types_pb.ts";
import { Fault } from "../../lib/fault.ts";
import type { SerialQueue } from "../../lib/serial-queue.ts";
import { sleep } from "../../lib/signal.ts";
import { chainIds } from "../../oci/chain-id.ts";
import type { Descriptor } from "../../oci/manifest.ts";
import { appliedLayerType } from "../../oci/media-types.ts";
import type { ContainerdServices } from "../client.ts";

export interface UnpackOptions {
  readonly snapshotter: string;
  /** Shared by all unpacking of a process, so that no layer is applied twice at once. */
  readonly queue: SerialQueue;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

const APPLY_MS = 15 * 60_000;
const RESTARTS = 3;
const REMOVE_ATTEMPTS = 5;

/** Whether the snapshot of all layers is there. */
export async function isUnpacked(
  services: ContainerdServices,
  snapshotter: string,
  diffIds: readonly string[],
  signal?: AbortSignal,
): Promise<boolean> {
  return await exists(services, snapshotter, chainIds(diffIds).at(-1) ?? "", signal);
}

/**
 * Makes the snapshots of an image's layers exist, starting above the deepest that does. The services must be under a
 * lease. An error leaves no half-made snapshot.
 * @throws Fault data_loss when a layer is not what the config says, resource_exhausted when the disk is full
 */
export async function unpackLayers(
  services: ContainerdServices,
  layers: readonly Descriptor[],
  diffIds: readonly string[],
  options: UnpackOptions,
): Promise<void> {
  const chain = chainIds(diffIds);
  for (let attempt = 1; ; attempt++) {
    let depth = chain.length;
    while (
      depth > 0 &&
      !(await exists(services, options.snapshotter, chain[depth - 1] ?? "", options.signal))
    )
      depth--;
    let whole = true;
    for (; whole && depth < chain.length; depth++) {
      options.onProgress?.({
        phase: "unpack",
        item: layers[depth]?.digest ?? "",
        done: depth,
        total: chain.length,
      });
      whole = await options.queue.run(
        `unpack ${chain[depth] ?? ""}`,
        async () => await applyLayer(services, layers[depth], diffIds[depth], chain, depth, options),
        options.signal,
      );
    }
    if (whole) return;
    if (attempt === RESTARTS) {
      throw new Fault(
        "aborted",
        `Cannot unpack: the layers below ${chain[depth] ?? ""} are removed again and again`,
        {
          hint: "Try again when nothing else removes images",
        },
      );
    }
  }
}

/** @returns false when the parent was collected before it could be built upon */
async function applyLayer(
  services: ContainerdServices,
  layer: Descriptor | undefined,
  diffId: string | undefined,
  chain: readonly string[],
  depth: number,
  options: UnpackOptions,
): Promise<boolean> {
  const { snapshotter, signal } = options;
  const name = chain[depth];
  if (layer === undefined || diffId === undefined || name === undefined) {
    throw new Fault("internal", "Cannot unpack: layers and diff ids differ in number");
  }
  if (await exists(services, snapshotter, name, signal)) return true;
  const key = `extract-${Date.now()}-${randomBytes(4).toString("hex")} ${name}`;
  let mounts: Mount[];
  try {
    ({ mounts } = await services.snapshots.prepare(
      { snapshotter, key, parent: chain[depth - 1] ?? "" },
      { signal },
    ));
  } catch (error) {
    if (Fault.is(error, "not_found") && depth > 0) return false;
    await removeSnapshot(services, snapshotter, key);
    throw error;
  }
  try {
    const diff = {
      mediaType: appliedLayerType(layer.mediaType),
      digest: layer.digest,
      size: BigInt(layer.size),
    };
    const { applied } = await services.diff.apply({ diff, mounts }, { signal, timeoutMs: APPLY_MS });
    if (applied?.digest !== diffId) {
      throw new Fault(
        "data_loss",
        `Cannot unpack layer ${layer.digest}: its content is not what the image says`,
        {
          hint: "Remove the image, then pull or import it again",
        },
      );
    }
    await services.snapshots.commit({ snapshotter, name, key }, { signal });
    return true;
  } catch (error) {
    await removeSnapshot(services, snapshotter, key);
    // Another process was first.
    if (Fault.is(error, "already_exists")) return true;
    throw error;
  }
}

/** Removes a half-made snapshot. What cannot be removed now is collected with the lease, so this never fails. */
async function removeSnapshot(services: ContainerdServices, snapshotter: string, key: string): Promise<void> {
  for (let attempt = 1; attempt <= REMOVE_ATTEMPTS; attempt++) {
    try {
      await services.snapshots.remove({ snapshotter, key });
      return;
    } catch (error) {
      if (Fault.is(error, "not_found", "unavailable", "deadline_exceeded")) return;
    }
    // An apply that was cancelled still has it mounted.
    await sleep(20 * attempt);
  }
}

async function exists(
  services: ContainerdServices,
  snapshotter: string,
  key: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    const { info } = await services.snapshots.stat({ snapshotter, key }, { signal });
    return info?.kind === Kind.COMMITTED;
  } catch (error) {
    if (Fault.is(error, "not_found")) return false;
    throw error;
  }
}
