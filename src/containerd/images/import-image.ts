// Import: the images of an archive on this machine, stored and named.
import { withDefaultTag } from "../../core/image-ref.ts";
import type { ProgressListener } from "../../core/runtime.ts";
import { Fault } from "../../lib/fault.ts";
import type { ArchivedImage, ImageArchive } from "../../oci/image-archive.ts";
import type { Descriptor } from "../../oci/manifest.ts";
import { choosePlatform, type Platform } from "../../oci/platform.ts";
import { resolveImage } from "../../oci/resolve-image.ts";
import type { ContainerdServices } from "../client.ts";
import { type ImageContext, storeImage } from "./store-image.ts";

export interface ImportOptions {
  /** Overrides the name the archive gives; the archive must hold one image then. */
  readonly name?: string | undefined;
  readonly host: Platform;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * Stores every image of an archive. Nothing is written before all documents are read and every layer is known to be
 * there.
 * @returns the names
 */
export async function importImages(
  context: ImageContext,
  services: ContainerdServices,
  archive: ImageArchive,
  options: ImportOptions,
): Promise<string[]> {
  const { host, signal, onProgress } = options;
  onProgress?.({ phase: "resolve" });
  const named = namedRoots(await archive.images(signal), options);
  const images = [];
  for (const { root, names } of named) {
    const what = names[0] ?? root.digest;
    const image = await resolveImage(
      root,
      async (descriptor) => await archive.document(descriptor),
      host,
      what,
    );
    for (const layer of image.manifest.layers) archive.check(layer);
    images.push({ image, names });
  }
  for (const { image, names } of images) {
    await storeImage(context, services, image, {
      names,
      parallel: 1,
      resumable: false,
      signal,
      onProgress,
      fetchLayer: async (layer, sink, layerSignal) => {
        for await (const chunk of archive.stream(layer, sink.offset, layerSignal)) await sink.write(chunk);
        await sink.commit();
      },
    });
  }
  return named.flatMap(({ names }) => names);
}

interface NamedRoot {
  readonly root: Descriptor;
  readonly names: readonly string[];
}

/** The roots to import, each once, with their names. Roots of one name are one image for several platforms. */
function namedRoots(images: readonly ArchivedImage[], options: ImportOptions): NamedRoot[] {
  const byName = new Map<string, Descriptor[]>();
  for (const { root, names } of images) {
    for (const name of names.length === 0 ? [""] : names) {
      byName.set(name, [...(byName.get(name) ?? []), root]);
    }
  }
  const roots = new Map<string, { root: Descriptor; names: string[] }>();
  for (const [name, candidates] of byName) {
    const what = name === "" ? "the archive's image" : name;
    const [first] = candidates;
    const same = candidates.every(({ digest }) => digest === first?.digest);
    const root = same && first !== undefined ? first : choosePlatform(candidates, options.host, what);
    const known = roots.get(root.digest) ?? { root, names: [] };
    if (name !== "") known.names.push(withDefaultTag(name));
    roots.set(root.digest, known);
  }
  const found = [...roots.values()];
  if (found.length === 0) {
    throw new Fault("invalid_argument", "Cannot import the archive: it holds no image", {
      hint: "Save the image again",
    });
  }
  if (options.name !== undefined) {
    const [only, ...more] = found;
    if (only === undefined || more.length > 0) {
      const names = found.flatMap((root) => root.names).join(", ");
      throw new Fault(
        "invalid_argument",
        `Cannot import the archive under one name: it holds several images (${names})`,
        {
          hint: "Import it without a name, or save the image alone",
        },
      );
    }
    return [{ root: only.root, names: [withDefaultTag(options.name)] }];
  }
  if (found.some(({ names }) => names.length === 0)) {
    throw new Fault(
      "invalid_argument",
      "Cannot import the archive: it does not say what its image is called",
      {
        hint: "Give a name, as in `memoh image import FILE --name team/bot:1`",
      },
    );
  }
  return found.map(({ root, names }) => ({ root, names: [...new Set(names)] }));
}
