// From the root of an image down to its config, wherever its documents are kept.
import { Fault } from "../lib/fault.ts";
import { type ImageConfigDocument, parseImageConfig } from "./image-config.ts";
import { type Descriptor, type Manifest, parseManifest } from "./manifest.ts";
import { choosePlatform, foreignPlatform, type Platform, platformRank } from "./platform.ts";

/** A document of an image with its bytes. */
export interface ImageDocument {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

/** Everything about an image for one platform but the bytes of its layers. */
export interface ResolvedImage {
  /** From the root down: indexes, if any, then the manifest. */
  readonly documents: readonly ImageDocument[];
  readonly manifest: Manifest;
  readonly configDocument: ImageDocument;
  readonly config: ImageConfigDocument;
}

/** Gives the checked bytes of a document. Registries keep manifests and configs in different places. */
export type ReadDocument = (descriptor: Descriptor, kind: "manifest" | "config") => Promise<Buffer>;

/** Indexes of indexes are allowed, and pointless beyond this. */
const MAX_DEPTH = 4;

/**
 * Walks from a manifest or index to the image for the host.
 * @param what names the image in errors
 * @throws Fault failed_precondition when there is none for the host, or it is no container image
 */
export async function resolveImage(
  root: Descriptor,
  read: ReadDocument,
  host: Platform,
  what: string,
): Promise<ResolvedImage> {
  const documents: ImageDocument[] = [];
  let descriptor = root;
  while (documents.length < MAX_DEPTH) {
    const bytes = await read(descriptor, "manifest");
    const document = parseManifest(bytes, `${descriptor.digest} of ${what}`);
    documents.push({
      descriptor: { mediaType: document.mediaType, digest: descriptor.digest, size: bytes.length },
      bytes,
    });
    if (document.kind === "index") {
      descriptor = choosePlatform(document.manifests, host, what);
      continue;
    }
    const configBytes = await read(document.config, "config");
    const config = parseImageConfig(configBytes, document, what);
    if (platformRank(config.platform, host) === undefined)
      throw foreignPlatform(what, [config.platform], host);
    return {
      documents,
      manifest: document,
      configDocument: { descriptor: { ...document.config, size: configBytes.length }, bytes: configBytes },
      config,
    };
  }
  throw new Fault(
    "failed_precondition",
    `Cannot use ${what}: its indexes are nested more than ${MAX_DEPTH} deep`,
    {
      hint: "The image is malformed: build or fetch it again",
    },
  );
}

/** Bytes of everything the image is stored as. */
export function contentSize(image: ResolvedImage): number {
  const documents = [...image.documents, image.configDocument].map(({ bytes }) => bytes.length);
  const layers = image.manifest.layers.map(({ size }) => size);
  return [...documents, ...layers].reduce((sum, size) => sum + size, 0);
}
