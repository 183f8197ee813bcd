// Every name of one instance that exists outside the process: directories, chains, tags, addresses.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Fault } from "../lib/fault.ts";
import { type Cidr, cidrText, ipv4Text, parseCidr } from "./cidr.ts";

/** What the names are derived from. */
export interface NameSource {
  /** Prefix of every name. */
  readonly instance: string;
  /** Interface name of the bridge. */
  readonly bridge: string;
  /** IPv4 range of the bots, /8 to /29. The first address is the host's. */
  readonly subnet: string;
  /** The instance's directory under /run, so that a reboot starts clean. */
  readonly runDir: string;
}

export interface Names {
  readonly instance: string;
  readonly bridge: string;
  readonly subnet: Cidr;
  /** The host's address on the bridge. */
  readonly gateway: string;
  /** MAC address of the bridge: the same at every start, locally administered. */
  readonly mac: string;
  /** Holds one file per container, its network namespace mounted on it. */
  readonly netnsDir: string;
  /** State of the CNI plugins. */
  readonly stateDir: string;
  /** Name of the CNI network, which host-local makes a directory of. */
  readonly network: string;
  /** Leases of host-local: one file per address. */
  readonly leaseDir: string;
  /** Alias of the bridge; a port has this, a slash and the container id. */
  readonly tag: string;
  /** iptables chains: drops, accepts, host's input, source NAT. */
  readonly chains: {
    readonly guard: string;
    readonly pass: string;
    readonly input: string;
    readonly nat: string;
  };
}

const INSTANCE = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
const INTERFACE = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;
/** Ids containerd accepts, which are also names of files and of CNI containers. */
const CONTAINER = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
/** iptables takes 28 bytes; `MEMOH-G-` is 8 of them. */
const CHAIN_ROOM = 20;

/** Derives and checks all names. @throws Fault invalid_argument */
export function namesOf(source: NameSource): Names {
  const { instance, bridge, runDir } = source;
  if (!INSTANCE.test(instance)) throw unusable("instance name", instance);
  if (!INTERFACE.test(bridge)) throw unusable("bridge name", bridge);
  if (!runDir.startsWith("/")) throw unusable("run directory", runDir);
  const subnet = parseCidr(source.subnet);
  if (subnet.bits < 8 || subnet.bits > 29) {
    throw new Fault("invalid_argument", `Cannot use ${cidrText(subnet)} as the subnet of bots: wrong size`, {
      hint: "Choose a private range between /8 and /29, such as 10.88.0.0/16",
    });
  }
  const stateDir = join(runDir, "cni");
  const hash = createHash("sha256").update(`${instance}\0${bridge}`).digest("hex");
  const short = instance.length <= CHAIN_ROOM ? instance : `${instance.slice(0, 11)}-${hash.slice(0, 8)}`;
  return {
    instance,
    bridge,
    subnet,
    gateway: ipv4Text(subnet.network + 1),
    mac: `02${hash.slice(8, 18).replaceAll(/../g, ":$&")}`,
    netnsDir: join(runDir, "netns"),
    stateDir,
    network: instance,
    leaseDir: join(stateDir, instance),
    tag: `memoh:${instance}`,
    chains: {
      guard: `MEMOH-G-${short}`,
      pass: `MEMOH-P-${short}`,
      input: `MEMOH-I-${short}`,
      nat: `MEMOH-N-${short}`,
    },
  };
}

/** Whether the text can be a container's id. */
export function isContainerId(text: string): boolean {
  return text.length <= 76 && CONTAINER.test(text);
}

/** @throws Fault invalid_argument */
export function checkContainerId(text: string): string {
  if (!isContainerId(text)) throw unusable("container id", text);
  return text;
}

function unusable(what: string, text: string): Fault {
  return new Fault("invalid_argument", `Cannot use ${JSON.stringify(text)} as ${what}`);
}
