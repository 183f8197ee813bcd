// The config of an image: what it was built for, how its commands run, and the layers it consists of.
import * as z from "zod";
import { Fault } from "../lib/fault.ts";
import { digestSchema, orEmpty, parseDocument } from "./document.ts";
import type { Manifest } from "./manifest.ts";
import { appliedLayerType, isConfigType } from "./media-types.ts";
import type { Platform } from "./platform.ts";

/** The parts of a config that memoh uses. */
export interface ImageConfigDocument {
  readonly platform: Platform;
  /** `NAME=value` */
  readonly env: readonly string[];
  /** Empty when not set. */
  readonly workingDir: string;
  /** Empty when not set. */
  readonly user: string;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
}

const text = z.string().max(4096);
const document = z.object({
  os: orEmpty(text),
  architecture: orEmpty(text),
  variant: orEmpty(text),
  config: orEmpty(
    z.object({
      // An environment variable may be as long as the kernel allows.
      Env: orEmpty(z.array(z.string().max(128 << 10)).max(10_000)),
      WorkingDir: orEmpty(text),
      User: orEmpty(text),
    }),
  ),
  rootfs: z.object({ type: z.literal("layers"), diff_ids: orEmpty(z.array(digestSchema)) }),
});

/**
 * An image's config from its bytes.
 * @throws Fault failed_precondition when it is malformed or does not belong to the manifest
 */
export function parseImageConfig(bytes: Uint8Array, manifest: Manifest, what: string): ImageConfigDocument {
  const wrong = (why: string, hint: string) =>
    new Fault("failed_precondition", `Cannot use ${what}: ${why}`, { hint });
  if (!isConfigType(manifest.config.mediaType)) {
    throw wrong(
      `it is not a container image but ${JSON.stringify(manifest.config.mediaType.slice(0, 200))}`,
      "Use an image that can be run",
    );
  }
  const parsed = parseDocument(document, bytes, what);
  const diffIds = parsed.rootfs.diff_ids ?? [];
  if (diffIds.length === 0) throw wrong("it has no layers", "Use an image that has at least one layer");
  if (diffIds.length !== manifest.layers.length) {
    throw wrong(
      `its manifest has ${manifest.layers.length} layers, its config ${diffIds.length}`,
      "The image is malformed: build or fetch it again",
    );
  }
  for (const layer of manifest.layers) appliedLayerType(layer.mediaType);
  return {
    platform: { os: parsed.os ?? "", architecture: parsed.architecture ?? "", variant: parsed.variant },
    env: parsed.config?.Env ?? [],
    workingDir: parsed.config?.WorkingDir ?? "",
    user: parsed.config?.User ?? "",
    diffIds,
  };
}
