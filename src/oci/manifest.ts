// Manifests and indexes of images, OCI's and Docker's second schema, checked before anything trusts them.
import * as z from "zod";
import { Fault } from "../lib/fault.ts";
import { digestSchema, orEmpty, parseDocument } from "./document.ts";
import { isIndexType, isManifestType, OCI_INDEX, OCI_MANIFEST } from "./media-types.ts";
import type { Platform } from "./platform.ts";

/** A blob: what it is, its digest, its bytes. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Platform | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

export interface Index {
  readonly kind: "index";
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
}

export interface Manifest {
  readonly kind: "manifest";
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** overlayfs takes no more layers than this. */
const MAX_LAYERS = 500;
const MAX_MANIFESTS = 1000;

const text = z.string().max(255);
const descriptor = z.object({
  mediaType: text,
  digest: digestSchema,
  size: z.int().min(0),
  platform: orEmpty(z.object({ os: text, architecture: text, variant: orEmpty(text) })),
  annotations: orEmpty(z.record(z.string(), z.string())),
});
const document = z.object({
  schemaVersion: z.number(),
  mediaType: orEmpty(text),
  manifests: orEmpty(z.array(descriptor).max(MAX_MANIFESTS)),
  config: orEmpty(descriptor),
  layers: orEmpty(z.array(descriptor).max(MAX_LAYERS)),
});
const version = z.object({ schemaVersion: z.number().optional() });

/**
 * A manifest or an index from its bytes.
 * @param what names it in errors
 * @throws Fault failed_precondition when malformed, unimplemented for Docker's first schema
 */
export function parseManifest(bytes: Uint8Array, what: string): Manifest | Index {
  // Looked at first, because the first schema has nothing else in common.
  if (parseDocument(version, bytes, what).schemaVersion === 1) {
    throw new Fault("unimplemented", `Cannot use ${what}: it is of Docker's schema version 1`, {
      hint: "Push the image again with a current tool: nothing has read that schema since 2024",
    });
  }
  const { schemaVersion, mediaType, manifests, config, layers } = parseDocument(document, bytes, what);
  const wrong = (why: string) =>
    new Fault("failed_precondition", `Cannot use ${what}: ${why}`, {
      hint: "The image is malformed: build or fetch it again",
    });
  if (schemaVersion !== 2) throw wrong(`unknown schema version ${schemaVersion}`);
  // A document that is both could be read one way by one program and the other way by the next.
  if (manifests !== undefined && (config !== undefined || layers !== undefined)) {
    throw wrong("it is a manifest and an index at once");
  }
  if (manifests !== undefined) {
    if (mediaType !== undefined && !isIndexType(mediaType)) throw wrong(`its type is ${mediaType}`);
    return { kind: "index", mediaType: mediaType ?? OCI_INDEX, manifests };
  }
  if (config === undefined) throw wrong("it has neither a config nor manifests");
  if (mediaType !== undefined && !isManifestType(mediaType)) throw wrong(`its type is ${mediaType}`);
  return { kind: "manifest", mediaType: mediaType ?? OCI_MANIFEST, config, layers: layers ?? [] };
}
