// Labels that tell containerd's collector what keeps what: image → index → manifest → config, layers → snapshots.
import type { Labels } from "./content-store.ts";

/** An index keeps the one manifest of it that was fetched. */
export function indexLabels(manifestDigest: string): Labels {
  return { "containerd.io/gc.ref.content.m.0": manifestDigest };
}

export function manifestLabels(configDigest: string, layerDigests: readonly string[]): Labels {
  const layers = layerDigests.map((digest, i) => [`containerd.io/gc.ref.content.l.${i}`, digest]);
  return { "containerd.io/gc.ref.content.config": configDigest, ...(Object.fromEntries(layers) as Labels) };
}

/** The config keeps the unpacked layers. */
export function configLabels(snapshotter: string, topChainId: string): Labels {
  return { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: topChainId };
}

export function layerLabels(diffId: string): Labels {
  return { "containerd.io/uncompressed": diffId };
}
