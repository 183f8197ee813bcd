// Media types of images, OCI's and Docker's.
import { Fault } from "../lib/fault.ts";

export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";

/** What a registry is asked for. Without the list it hides what an old client would not understand. */
export const ACCEPT_MANIFESTS = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");

export function isIndexType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
}

export function isConfigType(mediaType: string): boolean {
  return mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
}

/**
 * The layer type containerd's differ knows for a layer type found in a manifest.
 * @throws Fault unimplemented for layers that are encrypted, not distributable or of no known kind
 */
export function appliedLayerType(mediaType: string): string {
  switch (mediaType) {
    case OCI_LAYER:
    case `${OCI_LAYER}+gzip`:
    case `${OCI_LAYER}+zstd`:
    case `${DOCKER_LAYER}.gzip`:
      return mediaType;
    case DOCKER_LAYER:
      return OCI_LAYER;
    // Written by some tools, known to no containerd.
    case `${DOCKER_LAYER}.zstd`:
      return `${OCI_LAYER}+zstd`;
    default:
      throw new Fault(
        "unimplemented",
        `Cannot use a layer of type ${JSON.stringify(mediaType.slice(0, 200))}`,
        {
          hint: "Use an image whose layers are tar, tar+gzip or tar+zstd, neither encrypted nor foreign",
        },
      );
  }
}

/** The layer type of bytes of which nothing is known but their beginning. */
export function layerTypeOf(head: Uint8Array): string {
  if (head[0] === 0x1f && head[1] === 0x8b) return `${OCI_LAYER}+gzip`;
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd)
    return `${OCI_LAYER}+zstd`;
  return OCI_LAYER;
}
