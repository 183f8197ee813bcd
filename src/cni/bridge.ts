// The bridge of an instance: made ahead of the first bot, with an address, a MAC that stays, and no IPv6.
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import type { NetworkFinding } from "../core/network.ts";
import { faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { hostCommand } from "./host-command.ts";
import { records } from "./json.ts";
import { type Link, readLink, setAlias } from "./links.ts";
import type { Names } from "./names.ts";

const NO_MAC = "00:00:00:00:00:00";
const FORWARDING = "/proc/sys/net/ipv4/ip_forward";

/** Turns IP forwarding on. It is a setting of the whole host and is never turned off again. */
export async function ensureForwarding(): Promise<NetworkFinding[]> {
  return await ensureSetting(FORWARDING, "1", "IP forwarding was off");
}

/** Whether the bridge can take a port right now; without running a program. */
export function bridgeUsable(names: Names): boolean {
  const link = readLink(names.bridge);
  return link !== undefined && link.isBridge && link.up && link.mac !== NO_MAC && link.alias === names.tag;
}

/**
 * Makes the bridge right without detaching its ports.
 * @returns what was wrong
 * @throws Fault failed_precondition when an interface of that name belongs to something else
 */
export async function ensureBridge(names: Names, signal?: AbortSignal): Promise<NetworkFinding[]> {
  const { bridge } = names;
  const link = readLink(bridge);
  const addresses = link === undefined ? [] : await addressesOf(bridge, signal);
  if (link !== undefined) refuseForeign(names, link, addresses);
  const wanted = `${names.gateway}/${names.subnet.bits}`;
  const found: string[] = [];
  const commands: string[] = [];
  if (link === undefined) {
    found.push(`bridge ${bridge} was missing`);
    commands.push(`link add ${bridge} address ${names.mac} type bridge`);
  } else if (link.mac === NO_MAC || !link.macIsSet) {
    // A bridge that was not given a MAC takes one of its ports', and loses it with the last port; the bridge plugin
    // then fails for ever.
    found.push(
      link.mac === NO_MAC
        ? `bridge ${bridge} had no MAC address`
        : `bridge ${bridge} had a borrowed MAC address`,
    );
    commands.push(`link set dev ${bridge} address ${names.mac}`);
  }
  for (const stale of addresses.filter((address) => address !== wanted)) {
    found.push(`bridge ${bridge} had the address ${stale}`);
    commands.push(`addr del ${stale} dev ${bridge}`);
  }
  if (!addresses.includes(wanted)) {
    if (link !== undefined) found.push(`bridge ${bridge} lacked the address ${wanted}`);
    commands.push(`addr add ${wanted} dev ${bridge}`);
  }
  if (link?.up !== true) {
    if (link !== undefined) found.push(`bridge ${bridge} was down`);
    commands.push(`link set dev ${bridge} up`);
  }
  if (commands.length > 0) await hostCommand(["ip", "-batch", "-"], { input: commands.join("\n"), signal });
  if (link?.alias !== names.tag) setAlias(bridge, names.tag);
  const findings = found.map((what) => ({ what, repaired: true }));
  const ipv6 = `/proc/sys/net/ipv6/conf/${bridge}/disable_ipv6`;
  if (existsSync(ipv6)) {
    const finding = await ensureSetting(ipv6, "1", `bridge ${bridge} had IPv6`);
    if (link !== undefined) findings.push(...finding);
  }
  if (!bridgeUsable(names)) throw new Fault("internal", `Cannot make the bridge ${bridge} right`);
  return findings;
}

/** Removes the bridge if it is this instance's. Nothing there is success. */
export async function removeBridge(names: Names, signal?: AbortSignal): Promise<void> {
  if (readLink(names.bridge)?.alias !== names.tag) return;
  await hostCommand(["ip", "link", "del", "dev", names.bridge], { signal });
}

function refuseForeign(names: Names, link: Link, addresses: readonly string[]): void {
  const { bridge } = names;
  const hint = "Set network.bridge to a name that is free";
  if (!link.isBridge) {
    throw new Fault("failed_precondition", `Cannot use the interface ${bridge}: it is not a bridge`, {
      hint,
    });
  }
  if (link.alias === names.tag) return;
  const own = `${names.gateway}/${names.subnet.bits}`;
  if (link.alias !== "" || addresses.some((address) => address !== own)) {
    const whose = link.alias === "" ? `has the address ${addresses.join(", ")}` : `is marked ${link.alias}`;
    throw new Fault(
      "failed_precondition",
      `Cannot use the bridge ${bridge}: it belongs to something else, it ${whose}`,
      { hint },
    );
  }
}

async function addressesOf(name: string, signal: AbortSignal | undefined): Promise<string[]> {
  const output = await hostCommand(["ip", "-json", "-4", "addr", "show", "dev", name], { signal });
  return records(JSON.parse(output)).flatMap((link) =>
    records(link["addr_info"]).map((entry) => `${String(entry["local"])}/${String(entry["prefixlen"])}`),
  );
}

async function ensureSetting(path: string, value: string, what: string): Promise<NetworkFinding[]> {
  try {
    if ((await readFile(path, "latin1")).trim() === value) return [];
    await writeFile(path, value);
  } catch (error) {
    throw faultFromErrno(
      error,
      `Cannot write ${path}`,
      "Run memoh host as root; in a container, a privileged one",
    );
  }
  return [{ what, repaired: true }];
}
