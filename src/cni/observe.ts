// Looks at one attachment as it is: namespace, interface, address, route, port and lease.
import { join } from "node:path";
import { Fault } from "../lib/fault.ts";
import { cidrContains, ipv4Number } from "./cidr.ts";
import { BOT_INTERFACE, type InsideView, lookInside } from "./inside.ts";
import { leaseHolder, leasesOf } from "./leases.ts";
import { type Link, linkByIndex } from "./links.ts";
import type { Names } from "./names.ts";
import { isNetns } from "./netns.ts";
import type { Ports } from "./ports.ts";

/** An attachment and what is wrong with it. Nothing wrong means live and healthy. */
export interface Observed {
  /** Whether the namespace is mounted. */
  readonly netns: boolean;
  /** The bot's address, or else the one it held last. */
  readonly ip: string | undefined;
  /** The host's end of the pair. */
  readonly port: Link | undefined;
  /** Whether there is anything of it at all. */
  readonly exists: boolean;
  /** Needs to be made anew. */
  readonly broken: readonly string[];
  /** Can be put right while the bot runs. */
  readonly mendable: readonly string[];
}

/** Observes. One process when the namespace is there, none otherwise. */
export async function observe(
  names: Names,
  ports: Ports,
  containerId: string,
  signal?: AbortSignal,
): Promise<Observed> {
  const path = join(names.netnsDir, containerId);
  const netns = await isNetns(path);
  const tagged = ports.find(containerId);
  if (!netns) {
    const leases = leasesOf(names.leaseDir, containerId);
    return {
      netns,
      ip: leases.find((ip) => inSubnet(names, ip)),
      port: tagged?.link,
      exists: leases.length > 0 || tagged !== undefined,
      broken: ["the namespace was not there"],
      mendable: [],
    };
  }
  const inside = await enter(path, signal);
  const eth = inside?.interface;
  const ip = eth?.ipv4.find((address) => inSubnet(names, address));
  const holder = ip === undefined ? undefined : leaseHolder(names.leaseDir, ip);
  const port = tagged ?? (eth === undefined ? undefined : { link: linkByIndex(eth.peerIndex) });
  const link = port?.link;
  const broken: string[] = [];
  if (inside === undefined) broken.push("the namespace could not be entered");
  else if (!inside.loopbackUp) broken.push("the loopback was down");
  if (eth === undefined) broken.push(`${BOT_INTERFACE} was missing`);
  else if (!eth.up) broken.push(`${BOT_INTERFACE} was down`);
  if (ip === undefined) broken.push("there was no address");
  if (inside?.gateway !== names.gateway) broken.push("there was no default route");
  if (link === undefined || eth?.peerIndex !== link.index || eth.index !== link.peerIndex) {
    broken.push("the host's end was missing");
  }
  if (holder !== undefined && holder !== containerId)
    broken.push(`the address was leased to ${holder || "nobody"}`);
  const mendable = link === undefined ? [] : ports.faults(link);
  if (tagged === undefined) mendable.push("the port had no tag");
  if (holder === undefined) mendable.push("the lease was missing");
  return {
    netns,
    ip: ip ?? leasesOf(names.leaseDir, containerId).find((address) => inSubnet(names, address)),
    port: link,
    exists: true,
    broken,
    mendable,
  };
}

function inSubnet(names: Names, ip: string): boolean {
  const number = ipv4Number(ip);
  return number !== undefined && cidrContains(names.subnet, number);
}

/** Undefined when the namespace is beyond entering; a missing program or right is the caller's to know. */
async function enter(path: string, signal: AbortSignal | undefined): Promise<InsideView | undefined> {
  try {
    return await lookInside(path, signal);
  } catch (error) {
    if (Fault.is(error, "internal")) return undefined;
    throw error;
  }
}
