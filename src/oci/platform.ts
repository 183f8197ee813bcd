// Platforms: what this machine runs, and which of an index's images is made for it.
import { Fault } from "../lib/fault.ts";
import type { Descriptor } from "./manifest.ts";

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

/** Architectures of Node by their names in images. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/** What a variant-less image of an architecture is, and the variants a machine of it also runs, best first. */
const VARIANTS: Readonly<Record<string, readonly string[]>> = {
  amd64: ["v1"],
  arm64: ["v8"],
  arm: ["v7", "v6", "v5"],
};

/** The platform of this machine. */
export function hostPlatform(arch: string = process.arch): Platform {
  return { os: "linux", architecture: ARCHITECTURES[arch] ?? arch };
}

/** `linux/arm64/v8` */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return [os === "" ? "unknown" : os, architecture === "" ? "unknown" : architecture, variant ?? ""]
    .filter((part) => part !== "")
    .join("/");
}

/**
 * How well an image of a platform runs on a host: 0 is best, undefined is not at all. Variants above the baseline
 * (amd64/v3) are refused, because nothing says that this very processor has them.
 */
export function platformRank(platform: Platform, host: Platform): number | undefined {
  if (platform.os !== host.os || platform.architecture !== host.architecture) return undefined;
  const variants = VARIANTS[host.architecture];
  if (platform.variant === undefined || platform.variant === "") return 0;
  const rank = variants?.indexOf(
    platform.variant.startsWith("v") ? platform.variant : `v${platform.variant}`,
  );
  return rank === undefined || rank === -1 ? undefined : rank;
}

/**
 * The image of an index that runs on the host.
 * @param what names the image in the error
 * @throws Fault failed_precondition naming what there is instead
 */
export function choosePlatform(manifests: readonly Descriptor[], host: Platform, what: string): Descriptor {
  const images = manifests.filter((descriptor) => !isAttestation(descriptor));
  const ranked = images
    .flatMap((descriptor) => {
      const rank = descriptor.platform === undefined ? undefined : platformRank(descriptor.platform, host);
      return rank === undefined ? [] : [{ descriptor, rank }];
    })
    .sort((a, b) => a.rank - b.rank);
  const best = ranked[0]?.descriptor;
  if (best !== undefined) return best;
  // An index may leave the platform to the image's config, which is checked anyway.
  const [only, ...more] = images.filter((descriptor) => descriptor.platform === undefined);
  if (only !== undefined && more.length === 0) return only;
  throw foreignPlatform(
    what,
    images.flatMap((descriptor) => (descriptor.platform === undefined ? [] : [descriptor.platform])),
    host,
  );
}

/** The error for an image that is not made for this machine. */
export function foreignPlatform(what: string, platforms: readonly Platform[], host: Platform): Fault {
  const there = [...new Set(platforms.map(formatPlatform))].slice(0, 20).join(", ");
  const wanted = formatPlatform(host);
  return new Fault(
    "failed_precondition",
    `Cannot use ${what}: ${there === "" ? "it names no platform" : `it is for ${there}`}, this machine is ${wanted}`,
    { hint: `Use an image built for ${wanted}` },
  );
}

/** Build records that BuildKit puts beside images. */
function isAttestation({ platform, annotations }: Descriptor): boolean {
  return (
    (platform?.os === "unknown" && platform.architecture === "unknown") ||
    annotations?.["vnd.docker.reference.type"] !== undefined
  );
}
