// What memoh wants of the host's firewall, as data: chains of its own, their rules, and the jumps to them.
import { type Cidr, cidrText, LINK_LOCAL } from "./cidr.ts";
import type { Names } from "./names.ts";

/** One chain of ours. */
export interface ChainPlan {
  readonly table: "filter" | "nat";
  readonly name: string;
  /** Built-in chain that jumps here. */
  readonly from: "FORWARD" | "INPUT" | "POSTROUTING";
  /** Our chains of rank 0 stand before those of rank 1, of every instance. */
  readonly rank: 0 | 1;
  readonly rules: readonly string[];
}

/** Starts every chain of every instance, the letter after it tells which; see the rank of a chain. */
export const CHAIN_PREFIX = "MEMOH-";

/** Rank of any instance's chain by its name; undefined when it is not memoh's. */
export function rankOf(chain: string): 0 | 1 | undefined {
  if (!chain.startsWith(CHAIN_PREFIX)) return undefined;
  return chain.startsWith(`${CHAIN_PREFIX}P-`) ? 1 : 0;
}

/**
 * IPv4. Drops and accepts are two chains because accepting ends a packet's way through the table: with several
 * instances on one host, the drops of all must come before the accepts of any, or one's bots reach the other's.
 */
export function ipv4Plan(names: Names, denied: readonly Cidr[]): ChainPlan[] {
  const { bridge, chains } = names;
  const subnet = cidrText(names.subnet);
  const toBots = `-o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED`;
  return [
    {
      table: "filter",
      name: chains.guard,
      from: "FORWARD",
      rank: 0,
      rules: [
        `-i ${bridge} -o ${bridge} -j DROP`,
        `! -s ${subnet} -i ${bridge} -j DROP`,
        ...[LINK_LOCAL, ...denied].map((range) => `-d ${cidrText(range)} -i ${bridge} -j DROP`),
        // The host's own services again, when it redirects their ports elsewhere (published ports of Docker).
        `-i ${bridge} -m conntrack --ctstate DNAT -j DROP`,
        `${toBots} -j RETURN`,
        `-o ${bridge} -j DROP`,
      ],
    },
    {
      table: "filter",
      name: chains.pass,
      from: "FORWARD",
      rank: 1,
      // What the guard let by: bots to the outside, and the answers. Needed where the policy is DROP (Docker, ufw).
      rules: [`-i ${bridge} -j ACCEPT`, `-o ${bridge} -j ACCEPT`],
    },
    {
      table: "filter",
      name: chains.input,
      from: "INPUT",
      rank: 0,
      // The host dials agents, so answers come in; nothing else does, on any of the host's addresses.
      rules: [`-i ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, `-i ${bridge} -j DROP`],
    },
    {
      table: "nat",
      name: chains.nat,
      from: "POSTROUTING",
      rank: 0,
      rules: [`-s ${subnet} ! -d ${subnet} ! -o ${bridge} -j MASQUERADE`],
    },
  ];
}

/** IPv6: bots have none, so the bridge carries none, whatever else the host forwards. */
export function ipv6Plan(names: Names): ChainPlan[] {
  const { bridge, chains } = names;
  return [
    {
      table: "filter",
      name: chains.guard,
      from: "FORWARD",
      rank: 0,
      rules: [`-i ${bridge} -j DROP`, `-o ${bridge} -j DROP`],
    },
    { table: "filter", name: chains.input, from: "INPUT", rank: 0, rules: [`-i ${bridge} -j DROP`] },
  ];
}
