// Pull: an image of a registry, stored under the name it was asked for.
import { parseImageRef } from "../../core/image-ref.ts";
import type { ProgressListener } from "../../core/runtime.ts";
import type { Platform } from "../../oci/platform.ts";
import { type RegistryOptions, Repository } from "../../oci/registry.ts";
import { resolveImage } from "../../oci/resolve-image.ts";
import type { ContainerdServices } from "../client.ts";
import { type ImageContext, storeImage } from "./store-image.ts";

export interface PullOptions {
  readonly registry: RegistryOptions;
  readonly host: Platform;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** Layers fetched at once. */
const PARALLEL = 3;

/**
 * Fetches and stores an image.
 * @param name normalized, with a tag or a digest; with both the digest decides
 */
export async function pullImage(
  context: ImageContext,
  services: ContainerdServices,
  name: string,
  options: PullOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  const { registry, repository, tag, digest } = parseImageRef(name);
  const remote = new Repository(registry, repository, options.registry);
  onProgress?.({ phase: "resolve", item: name });
  const root = await remote.manifest(digest ?? tag ?? "latest", signal);
  const image = await resolveImage(
    root.descriptor,
    async (descriptor, kind) => {
      if (descriptor.digest === root.descriptor.digest) return root.bytes;
      if (kind === "config") return await remote.document(descriptor, signal);
      return (await remote.manifest(descriptor.digest, signal)).bytes;
    },
    options.host,
    name,
  );
  await storeImage(context, services, image, {
    names: [name],
    parallel: PARALLEL,
    resumable: true,
    signal,
    onProgress,
    fetchLayer: async (layer, sink, layerSignal) => {
      await remote.download(layer, sink, layerSignal);
    },
  });
}
