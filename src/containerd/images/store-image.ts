// An image made whole in containerd: content, labels, snapshots, and only then its name.
import type { ProgressListener } from "../../core/runtime.ts";
import type { Image } from "../../gen/proto/containerd/images_pb.ts";
import { Fault } from "../../lib/fault.ts";
import type { SerialQueue } from "../../lib/serial-queue.ts";
import { chainIds } from "../../oci/chain-id.ts";
import type { Descriptor } from "../../oci/manifest.ts";
import type { BlobSink } from "../../oci/registry.ts";
import type { ResolvedImage } from "../../oci/resolve-image.ts";
import type { ContainerdServices } from "../client.ts";
import { ContentStore } from "./content-store.ts";
import { configLabels, indexLabels, layerLabels, manifestLabels } from "./gc-labels.ts";
import { inParallel } from "./parallel.ts";
import { unpackLayers } from "./unpack.ts";

/** What all image work of one containerd shares. */
export interface ImageContext {
  readonly snapshotter: string;
  /** One writer per blob and one unpacking per layer at a time. */
  readonly queue: SerialQueue;
}

export interface StoreOptions {
  /** Names to give it, normalized. */
  readonly names: readonly string[];
  /** Layers fetched at once. */
  readonly parallel: number;
  /** Keep what was fetched of a layer when a later attempt may go on from there. */
  readonly resumable: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
  /** Writes a layer into the sink, from its offset on, and commits it. */
  readonly fetchLayer: (layer: Descriptor, sink: BlobSink, signal: AbortSignal) => Promise<void>;
}

/** Stores an image under the lease of the services. The names are set last, when nothing can be missing any more. */
export async function storeImage(
  context: ImageContext,
  services: ContainerdServices,
  image: ResolvedImage,
  options: StoreOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  const { manifest, config, configDocument } = image;
  const content = new ContentStore(services, context.queue);
  const layers = manifest.layers.map((layer, i) => ({ layer, labels: layerLabels(config.diffIds[i] ?? "") }));
  await inParallel(layers, options.parallel, signal, async ({ layer, labels }, layerSignal) => {
    let shown = -1;
    const show = (done: number) => {
      if (done !== shown) onProgress?.({ phase: "layer", item: layer.digest, done, total: layer.size });
      shown = done;
    };
    await content.put(
      layer,
      labels,
      async (sink) => {
        await options.fetchLayer(layer, watchedSink(sink, show), layerSignal);
      },
      { signal: layerSignal, resumable: options.resumable },
    );
    // A layer that was there shows as fetched.
    show(layer.size);
  });

  const top = chainIds(config.diffIds).at(-1) ?? "";
  await content.putBytes(
    configDocument.descriptor,
    configDocument.bytes,
    configLabels(context.snapshotter, top),
    signal,
  );
  const layerDigests = manifest.layers.map(({ digest }) => digest);
  let labels = manifestLabels(configDocument.descriptor.digest, layerDigests);
  for (const { descriptor, bytes } of image.documents.toReversed()) {
    await content.putBytes(descriptor, bytes, labels, signal);
    labels = indexLabels(descriptor.digest);
  }
  await unpackLayers(services, manifest.layers, config.diffIds, { ...context, signal, onProgress });

  const target = image.documents[0]?.descriptor;
  if (target === undefined) throw new Fault("internal", "Cannot store an image without documents");
  for (const name of options.names) await setName(services, name, target, signal);
}

/** Points a name at an image, whether it existed or not. */
async function setName(
  services: ContainerdServices,
  name: string,
  target: Descriptor,
  signal: AbortSignal | undefined,
): Promise<void> {
  const image = {
    name,
    target: { mediaType: target.mediaType, digest: target.digest, size: BigInt(target.size) },
  } satisfies Partial<Record<keyof Image, unknown>>;
  // A name that comes and goes between the two calls is somebody else's doing; trying again settles it.
  for (let attempt = 1; ; attempt++) {
    try {
      await services.images.create({ image }, { signal });
      return;
    } catch (error) {
      if (!Fault.is(error, "already_exists")) throw error;
    }
    try {
      await services.images.update({ image, updateMask: { paths: ["target"] } }, { signal });
      return;
    } catch (error) {
      if (!Fault.is(error, "not_found") || attempt === 3) throw error;
    }
  }
}

function watchedSink(sink: BlobSink, onBytes: (done: number) => void): BlobSink {
  return {
    get offset() {
      return sink.offset;
    },
    write: async (chunk) => {
      await sink.write(chunk);
      onBytes(sink.offset);
    },
    commit: async () => {
      await sink.commit();
    },
    reset: async () => {
      await sink.reset();
    },
  };
}
