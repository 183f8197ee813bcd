// Network interfaces as the kernel shows them under /sys/class/net: no program needs to run to look at them.
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";

// Reads are synchronous on purpose: sysfs answers from memory in microseconds, a trip through the thread pool costs
// ten times that, and a sweep looks at every interface.
const ROOT = "/sys/class/net";
const IFF_UP = 1;
/** NET_ADDR_SET: the MAC was given, the kernel will not change it when ports come and go. */
const ADDRESS_SET = 3;

/** One interface of the host. */
export interface Link {
  readonly name: string;
  readonly index: number;
  /** Index of the other end of a veth pair, in its own namespace. */
  readonly peerIndex: number;
  readonly mac: string;
  /** Whether the MAC was set by someone and therefore stays. */
  readonly macIsSet: boolean;
  readonly mtu: number;
  readonly up: boolean;
  /** Name of the bridge it is a port of. */
  readonly master: string | undefined;
  /** Whether this port is closed to other isolated ports; undefined when it is no port. */
  readonly isolated: boolean | undefined;
  readonly isBridge: boolean;
  /** Free text that stays with the interface; memoh's tag. */
  readonly alias: string;
}

/** Names of all interfaces of the host. */
export function linkNames(): string[] {
  return readdirSync(ROOT);
}

/** One interface, undefined when there is none of that name or it vanished meanwhile. */
export function readLink(name: string): Link | undefined {
  const index = attribute(name, "ifindex");
  const flags = attribute(name, "flags");
  if (index === undefined || flags === undefined) return undefined;
  const isolated = attribute(name, "brport/isolated");
  return {
    name,
    index: Number(index),
    peerIndex: Number(attribute(name, "iflink") ?? "0"),
    mac: attribute(name, "address") ?? "",
    macIsSet: attribute(name, "addr_assign_type") === String(ADDRESS_SET),
    mtu: Number(attribute(name, "mtu") ?? "1500"),
    up: (Number(flags) & IFF_UP) !== 0,
    master: masterOf(name),
    isolated: isolated === undefined ? undefined : isolated === "1",
    isBridge: exists(name, "bridge"),
    alias: aliasOf(name),
  };
}

/** The alias alone: what a scan over all interfaces reads. */
export function aliasOf(name: string): string {
  return attribute(name, "ifalias") ?? "";
}

/** The interface with that index. */
export function linkByIndex(index: number): Link | undefined {
  const name = linkNames().find((candidate) => attribute(candidate, "ifindex") === String(index));
  return name === undefined ? undefined : readLink(name);
}

/** Sets the alias. @throws Fault */
export function setAlias(name: string, alias: string): void {
  write(name, "ifalias", alias);
}

/** Closes a bridge port to all other isolated ports of its bridge. @throws Fault */
export function isolatePort(name: string): void {
  write(name, "brport/isolated", "1");
}

function write(name: string, file: string, value: string): void {
  const path = `${ROOT}/${name}/${file}`;
  try {
    writeFileSync(path, value);
  } catch (error) {
    throw faultFromErrno(
      error,
      `Cannot write ${path}`,
      "Give the host a writable /sys (a privileged container if it is in one)",
    );
  }
}

function attribute(name: string, file: string): string | undefined {
  try {
    return readFileSync(`${ROOT}/${name}/${file}`, "latin1").trim();
  } catch (error) {
    return gone(error);
  }
}

function masterOf(name: string): string | undefined {
  try {
    return basename(readlinkSync(`${ROOT}/${name}/master`));
  } catch (error) {
    return gone(error);
  }
}

function exists(name: string, file: string): boolean {
  return statSync(`${ROOT}/${name}/${file}`, { throwIfNoEntry: false }) !== undefined;
}

/** ENOENT, ENOTDIR: no such attribute. ENODEV, EINVAL: the interface went, or has no value while it is down. */
function gone(error: unknown): undefined {
  if (["ENOENT", "ENOTDIR", "ENODEV", "EINVAL"].includes(errnoOf(error) ?? "")) return undefined;
  throw faultFromErrno(error, "Cannot read the interfaces of the host");
}
