// What memoh needs from the distribution: how each thing is recognised, which Debian package has it, and what for.

/**
 * @typedef {object} Need
 * @property {string} package Debian package that is installed when the thing is missing
 * @property {string[]} any paths; one that exists is enough (`*` stands for one path component). A bare name is a program
 * @property {string} why what memoh does with it
 */

/** @type {Need[]} What a host needs. */
export const RUN = [
  { package: "containerd", any: ["containerd"], why: "keeps images and containers" },
  { package: "runc", any: ["runc", "crun"], why: "starts containers" },
  {
    package: "containernetworking-plugins",
    any: ["/opt/cni/bin/bridge", "/usr/lib/cni/bridge", "/usr/libexec/cni/bridge"],
    why: "connects containers to a bridge",
  },
  { package: "iptables", any: ["iptables"], why: "lets bots out and keeps them apart" },
  { package: "iproute2", any: ["ip"], why: "makes network namespaces" },
  {
    package: "postgresql",
    any: ["/usr/lib/postgresql/*/bin/postgres"],
    why: "memoh's private database (its programs only: no cluster, no service)",
  },
  { package: "tini", any: ["/usr/bin/tini-static"], why: "is process 1 in every bot" },
];

/** @type {Need[]} What making the bot image needs where no docker engine runs. */
export const IMAGE = [
  { package: "buildah", any: ["buildah"], why: "builds the bot image" },
  { package: "skopeo", any: ["skopeo"], why: "packs the bot image" },
  {
    package: "mmdebstrap",
    any: ["mmdebstrap"],
    why: "makes the image's base from this machine's Debian mirror",
  },
];

/** @type {Need[]} What the tests need besides. */
export const TEST = [
  { package: "docker-registry", any: ["docker-registry"], why: "tests: a registry to pull from" },
  { package: "busybox-static", any: ["busybox"], why: "tests: an image that is no Debian" },
  { package: "attr", any: ["setfattr"], why: "tests: extended attributes" },
  { package: "procps", any: ["ps"], why: "tests: what runs" },
  { package: "zstd", any: ["zstd"], why: "tests: zstd archives" },
  { package: "git", any: ["git"], why: "tests: the commit a build names" },
];
