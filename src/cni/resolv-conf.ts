// The bots' resolv.conf: resolvers a bot can really reach, taken from the configuration or from the host.
import { readFile } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { networkInterfaces } from "node:os";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { type Cidr, cidrContains, ipv4Number, LINK_LOCAL, parseCidr } from "./cidr.ts";

/** The file with the real upstreams of systemd-resolved, and what every host has. The first that is of use counts. */
const HOST_FILES = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];
/** glibc reads no more than three (resolv.conf(5), MAXNS). */
const MAX_SERVERS = 3;
/** `trust-ad` says that the way to the resolver is safe, which is true of a stub on the host and not of its upstream. */
const DROPPED_OPTIONS = new Set(["trust-ad"]);

/** What a resolv.conf says. */
export interface ResolverConfig {
  readonly servers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** A resolver that was left out, and why. */
export interface DroppedResolver {
  readonly server: string;
  readonly why: string;
}

/** The file for the bots and where it is from. */
export interface BotResolvConf {
  readonly text: string;
  readonly servers: readonly string[];
  /** `configured`, the path of the host's file, or `none` when no resolver is of use: names will not resolve. */
  readonly source: string;
  readonly dropped: readonly DroppedResolver[];
}

export interface ResolvConfOptions {
  /** Resolvers of the configuration; they win. */
  readonly configured?: readonly string[];
  /** Ranges bots may not reach beside 169.254.0.0/16, as CIDR: network.deny and their own subnet. */
  readonly deny?: readonly string[];
}

/**
 * The resolv.conf of this host's bots. Public resolvers are never put in by themselves: an offline host, or one whose
 * only resolver is a stub, gets a file without any and says so in `source`, so that asking the world stays a decision
 * of whoever sets network.nameservers.
 * @throws Fault invalid_argument when a configured resolver is not an address bots can reach
 */
export async function readResolvConf(options: ResolvConfOptions = {}): Promise<BotResolvConf> {
  const files = await Promise.all(
    HOST_FILES.map(async (path) => ({ path, config: parseResolvConf(await readText(path)) })),
  );
  const own = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map((entry) => entry.address),
  );
  return botResolvConf(options, files, own);
}

/**
 * The same from what was read.
 * @param files the host's, the best first
 * @param hostAddresses addresses of the host itself: it does not serve names to bots
 */
export function botResolvConf(
  options: ResolvConfOptions,
  files: readonly { readonly path: string; readonly config: ResolverConfig }[],
  hostAddresses: readonly string[],
): BotResolvConf {
  const denied = (options.deny ?? []).map(parseCidr);
  const whyNot = (server: string) => unreachable(server, denied, hostAddresses);
  const dropped: DroppedResolver[] = [];
  const usable = (servers: readonly string[]) =>
    [...new Set(servers)].filter((server) => {
      const why = whyNot(server);
      if (why !== undefined) dropped.push({ server, why });
      return why === undefined;
    });
  const configured = options.configured ?? [];
  for (const server of configured) {
    const why = whyNot(server);
    if (why === undefined) continue;
    throw new Fault(
      "invalid_argument",
      `Cannot use ${JSON.stringify(server)} as a nameserver of bots: ${why}`,
      {
        hint: "Set network.nameservers to IPv4 addresses of resolvers outside this host",
      },
    );
  }
  const candidates = files.map((file) => ({ ...file, servers: usable(file.config.servers) }));
  const best = candidates.find((file) => file.servers.length > 0);
  const settings = (best ?? files.find(({ config }) => config.search.length > 0))?.config;
  const servers = (configured.length > 0 ? [...new Set(configured)] : (best?.servers ?? [])).slice(
    0,
    MAX_SERVERS,
  );
  return {
    text: printResolvConf({
      servers,
      search: settings?.search ?? [],
      options: (settings?.options ?? []).filter((option) => !DROPPED_OPTIONS.has(option)),
    }),
    servers,
    source: configured.length > 0 ? "configured" : (best?.path ?? "none"),
    dropped,
  };
}

/** Reads a resolv.conf(5). Of several `search` and `domain` lines the last counts. */
export function parseResolvConf(text: string): ResolverConfig {
  const servers: string[] = [];
  const options: string[] = [];
  let search: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword = "", ...values] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (keyword === "nameserver" && values[0] !== undefined) servers.push(values[0]);
    else if (keyword === "search") search = values;
    else if (keyword === "domain") search = values.slice(0, 1);
    else if (keyword === "options") options.push(...values);
  }
  return { servers, search, options };
}

function printResolvConf(config: ResolverConfig): string {
  const lines = ["# Written by memoh for this bot; see network.nameservers."];
  if (config.servers.length === 0) lines.push("# This host has no resolver that a bot can reach.");
  lines.push(...config.servers.map((server) => `nameserver ${server}`));
  if (config.search.length > 0) lines.push(`search ${config.search.join(" ")}`);
  if (config.options.length > 0) lines.push(`options ${config.options.join(" ")}`);
  return `${lines.join("\n")}\n`;
}

/** Why a bot cannot ask this resolver; undefined when it can. */
function unreachable(
  server: string,
  denied: readonly Cidr[],
  hostAddresses: readonly string[],
): string | undefined {
  const address = ipv4Number(server);
  if (address === undefined) {
    return isIPv6(server.split("%", 1)[0] ?? "") ? "bots have no IPv6" : "it is not an address";
  }
  if (address >>> 24 === 127 || address === 0) return "it is a stub on the host's own loopback";
  if (hostAddresses.includes(server)) return "it is the host itself, which is closed to bots";
  if ([LINK_LOCAL, ...denied].some((range) => cidrContains(range, address)))
    return "bots may not reach that range";
  return undefined;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw faultFromErrno(error, `Cannot read ${path}`);
  }
}
