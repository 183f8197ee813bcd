// The host's IPv4 routes: does the bots' subnet collide with one, and which way is out.
import { readFileSync } from "node:fs";
import { type Cidr, cidrsOverlap, cidrText } from "./cidr.ts";
import { readLink } from "./links.ts";

/** A route of the main table. */
export interface HostRoute {
  readonly interface: string;
  readonly range: Cidr;
  /** Whether it goes through a router rather than to the link. */
  readonly viaGateway: boolean;
}

/** Routes the kernel has now (proc(5), /proc/net/route: numbers are little-endian hex). */
export function hostRoutes(): HostRoute[] {
  return parseRoutes(readFileSync("/proc/net/route", "latin1"));
}

/** Reads the text of /proc/net/route. */
export function parseRoutes(text: string): HostRoute[] {
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .flatMap(([name = "", destination = "", gateway = "", , , , , mask = ""]) => {
      if (name === "" || mask === "") return [];
      const bits = swapped(mask).toString(2).replaceAll("0", "").length;
      return [
        {
          interface: name,
          range: { network: swapped(destination), bits },
          viaGateway: swapped(gateway) !== 0,
        },
      ];
    });
}

/**
 * The first route that the subnet would collide with. A wider route through a router (10.0.0.0/8 into a VPN) is none:
 * the narrower one wins, and nothing says that the addresses are in use there.
 */
export function collidingRoute(
  subnet: Cidr,
  bridge: string,
  routes: readonly HostRoute[],
): string | undefined {
  const hit = routes.find(
    (route) =>
      route.interface !== bridge &&
      route.range.bits > 0 &&
      cidrsOverlap(route.range, subnet) &&
      !(route.viaGateway && route.range.bits < subnet.bits),
  );
  return hit === undefined ? undefined : `${cidrText(hit.range)} of ${hit.interface}`;
}

/** MTU of the interface the default route leaves by, never above Ethernet's; undefined without such a route. */
export function uplinkMtu(routes: readonly HostRoute[]): number | undefined {
  const name = routes.find((route) => route.range.bits === 0)?.interface;
  const mtu = name === undefined ? undefined : readLink(name)?.mtu;
  return mtu === undefined ? undefined : Math.min(mtu, 1500);
}

function swapped(hex: string): number {
  return Number.parseInt(hex.replaceAll(/(..)(..)(..)(..)/g, "$4$3$2$1"), 16) || 0;
}
