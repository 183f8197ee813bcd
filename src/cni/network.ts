// The bots' network on this host: the Network contract over a bridge, the CNI bridge plugin and static firewall rules.
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Network, NetworkFinding, NetworkResult } from "../core/network.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { SerialQueue } from "../lib/serial-queue.ts";
import { withDeadline } from "../lib/signal.ts";
import { Attacher } from "./attach.ts";
import { bridgeUsable, ensureBridge, ensureForwarding, removeBridge } from "./bridge.ts";
import { type Cidr, cidrText, parseCidr } from "./cidr.ts";
import { ensureFirewall, IPV4_TOOLS, IPV6_TOOLS, removeFirewall } from "./firewall.ts";
import { ipv4Plan, ipv6Plan } from "./firewall-rules.ts";
import { collidingRoute, hostRoutes, uplinkMtu } from "./host-routes.ts";
import { freeBlankLeases, listLeases } from "./leases.ts";
import { readLink } from "./links.ts";
import { remountNetns } from "./lost-netns.ts";
import { checkContainerId, isContainerId, type NameSource, type Names, namesOf } from "./names.ts";
import { deleteNetns, ensureNetnsDir, listNetns, removeNetnsDir } from "./netns.ts";
import { type Observed, observe } from "./observe.ts";
import { BridgePlugin } from "./plugin.ts";
import { Ports } from "./ports.ts";

/** Milliseconds for one setup or removal, one check of the host. */
const ATTACH_LIMIT = 30_000;
const HOST_LIMIT = 60_000;
/** No container has this id, so the host's turn never meets a container's. */
const HOST = "\0host";
/** Milliseconds after which an empty lease file is the leaving of a killed plugin and not one being written. */
const BLANK_LEASE_AGE = 60_000;

export interface CniNetworkOptions extends NameSource {
  /** Directory of the CNI plugins; empty or absent looks in the usual places. */
  readonly pluginDir?: string;
  /** Further IPv4 ranges no bot may reach. 169.254.0.0/16 always is one. */
  readonly deny?: readonly string[];
  readonly log: Logger;
}

export class CniNetwork implements Network {
  readonly #names: Names;
  readonly #denied: readonly Cidr[];
  readonly #ports: Ports;
  readonly #plugin: BridgePlugin;
  readonly #attacher: Attacher;
  readonly #log: Logger;
  readonly #queue = new SerialQueue();
  #hostChecked = false;
  #mtu = 1500;

  /** @throws Fault invalid_argument for a name or range that cannot be used */
  constructor(options: CniNetworkOptions) {
    this.#names = namesOf(options);
    this.#denied = (options.deny ?? []).map(parseCidr);
    this.#log = options.log.child({ room: "cni" });
    this.#ports = new Ports(this.#names);
    this.#plugin = new BridgePlugin(this.#names, options.pluginDir ?? "");
    this.#attacher = new Attacher({
      names: this.#names,
      ports: this.#ports,
      plugin: this.#plugin,
      log: this.#log,
      mtu: () => this.#mtu,
    });
  }

  netnsPathOf(containerId: string): string {
    return join(this.#names.netnsDir, checkContainerId(containerId));
  }

  async ensureHost(wait?: Wait): Promise<NetworkFinding[]> {
    return await this.#serial(HOST, HOST_LIMIT, "check the host's network", wait, async (signal) => {
      const { netnsDir } = this.#names;
      const findings = this.#checkRoutes();
      await ensureNetnsDir(netnsDir, signal);
      findings.push(...(await ensureForwarding()));
      // The walls stand before the bridge does.
      const walls = await Promise.all(
        this.#firewall().map(({ plan, tools }) => ensureFirewall(plan, tools, signal)),
      );
      findings.push(...walls.flat(), ...(await ensureBridge(this.#names, signal)));
      findings.push(...(await this.#mendPorts(signal)));
      // At the first look nothing is there, which is no news.
      const level = this.#hostChecked ? "warn" : "info";
      for (const { what, repaired } of findings) this.#log[level]({ repaired }, what);
      await this.#plugin.version(await this.#plugin.directory());
      this.#hostChecked = true;
      return findings;
    });
  }

  async setup(containerId: string, wait?: Wait): Promise<NetworkResult> {
    const netnsPath = this.netnsPathOf(containerId);
    await this.#hostReady(wait);
    return await this.#serial(containerId, ATTACH_LIMIT, "attach", wait, async (signal) => {
      let seen = await observe(this.#names, this.#ports, containerId, signal);
      if (!seen.netns && (await this.#remount(containerId, netnsPath, signal))) {
        seen = await observe(this.#names, this.#ports, containerId, signal);
      }
      const result = healthy(seen, netnsPath);
      if (result !== undefined) return result;
      if (seen.ip !== undefined && (await this.#attacher.mend(containerId, seen, { signal }))) {
        return { ip: seen.ip, netnsPath };
      }
      return { ip: await this.#attacher.attach(containerId, seen, { signal }), netnsPath };
    });
  }

  async inspect(containerId: string, wait?: Wait): Promise<NetworkResult | undefined> {
    const netnsPath = this.netnsPathOf(containerId);
    using limit = withDeadline(wait?.signal, ATTACH_LIMIT, `Cannot inspect ${containerId}`);
    return healthy(await observe(this.#names, this.#ports, containerId, limit.signal), netnsPath);
  }

  async remove(containerId: string, wait?: Wait): Promise<void> {
    checkContainerId(containerId);
    await this.#serial(containerId, ATTACH_LIMIT, "detach", wait, async (signal) => {
      await this.#remove(containerId, signal);
    });
  }

  async list(_wait?: Wait): Promise<string[]> {
    const ids = new Set([
      ...(await listNetns(this.#names.netnsDir)),
      ...listLeases(this.#names.leaseDir).map((lease) => lease.containerId),
      ...this.#ports.all().keys(),
    ]);
    return [...ids].filter(isContainerId).sort();
  }

  /**
   * Removes what belongs to containers that are not live, and addresses that nobody holds. Each container is asked for
   * when its turn has come, so one that is being set up meanwhile is safe if `live` knows it; a Set will do otherwise.
   * @returns what was found; what could not be removed is tried again next time
   */
  async reclaim(
    live: { has(containerId: string): boolean | Promise<boolean> },
    wait?: Wait,
  ): Promise<NetworkFinding[]> {
    const findings: NetworkFinding[] = [];
    for (const containerId of await this.list(wait)) {
      if (await live.has(containerId)) continue;
      await this.#serial(containerId, ATTACH_LIMIT, "detach", wait, async (signal) => {
        if (await live.has(containerId)) return;
        const what = `the network attachment of ${containerId} was left over`;
        try {
          await this.#remove(containerId, signal);
          findings.push({ what, repaired: true });
        } catch (error) {
          if (wait?.signal?.aborted === true) throw error;
          this.#log.warn({ containerId, err: error }, "a leftover attachment could not be removed");
          findings.push({ what, repaired: false });
        }
      });
    }
    for (const ip of freeBlankLeases(this.#names.leaseDir, BLANK_LEASE_AGE)) {
      findings.push({ what: `the address ${ip} was leased to nobody`, repaired: true });
    }
    return findings;
  }

  /** Removes everything of this instance from the host but IP forwarding. For uninstalling and tests. */
  async teardownHost(wait?: Wait): Promise<void> {
    for (const containerId of await this.list(wait)) await this.remove(containerId, wait);
    await this.#serial(HOST, HOST_LIMIT, "take the host's network down", wait, async (signal) => {
      this.#hostChecked = false;
      await removeBridge(this.#names, signal);
      for (const { plan, tools } of this.#firewall()) await removeFirewall(plan, tools, signal);
      await removeNetnsDir(this.#names.netnsDir, signal);
      await rm(this.#names.stateDir, { recursive: true, force: true });
    });
  }

  async #remove(containerId: string, signal: AbortSignal): Promise<void> {
    const path = this.netnsPathOf(containerId);
    const seen = await observe(this.#names, this.#ports, containerId, signal);
    if (seen.exists) await this.#attacher.detach(containerId, { signal });
    await deleteNetns(path, signal);
  }

  /** Nothing is attached before the host has been checked, nor while its bridge is missing. */
  async #hostReady(wait: Wait | undefined): Promise<void> {
    const ready = this.#hostChecked && bridgeUsable(this.#names) && existsSync(this.#names.netnsDir);
    if (!ready) await this.ensureHost(wait);
  }

  #checkRoutes(): NetworkFinding[] {
    const routes = hostRoutes();
    this.#mtu = uplinkMtu(routes) ?? this.#mtu;
    const collision = collidingRoute(this.#names.subnet, this.#names.bridge, routes);
    if (collision === undefined) return [];
    const subnet = cidrText(this.#names.subnet);
    if (bridgeUsable(this.#names)) {
      return [{ what: `the route ${collision} overlaps the bots' subnet ${subnet}`, repaired: false }];
    }
    throw new Fault(
      "failed_precondition",
      `Cannot use ${subnet} for bots: it overlaps the route ${collision}`,
      {
        hint: "Set network.subnet to a private range that this host has no route to",
      },
    );
  }

  #firewall() {
    const four = { plan: ipv4Plan(this.#names, this.#denied), tools: IPV4_TOOLS };
    const six = { plan: ipv6Plan(this.#names), tools: IPV6_TOOLS };
    return existsSync("/proc/sys/net/ipv6") ? [four, six] : [four];
  }

  async #mendPorts(signal: AbortSignal): Promise<NetworkFinding[]> {
    const findings: NetworkFinding[] = [];
    for (const [containerId, name] of this.#ports.all()) {
      const link = readLink(name);
      const faults = link === undefined ? [] : this.#ports.faults(link);
      if (faults.length === 0) continue;
      let repaired = true;
      try {
        await this.#ports.mend(name, signal);
      } catch (error) {
        // Its container may be on the way out.
        if (readLink(name) === undefined) continue;
        this.#log.warn({ containerId, err: error }, "a port could not be mended");
        repaired = false;
      }
      findings.push(...faults.map((what) => ({ what: `${what} (${containerId})`, repaired })));
    }
    return findings;
  }

  async #remount(containerId: string, path: string, signal: AbortSignal): Promise<boolean> {
    const port = this.#ports.find(containerId);
    if (port === undefined) return false;
    const found = await remountNetns(path, port.netnsInode, signal);
    if (found) this.#log.warn({ containerId }, "the network namespace had lost its name");
    return found;
  }

  async #serial<T>(
    key: string,
    limitMs: number,
    doing: string,
    wait: Wait | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const what = key === HOST ? `Cannot ${doing}` : `Cannot ${doing} ${key}`;
    return await this.#queue.run(
      key,
      async () => {
        using limit = withDeadline(wait?.signal, limitMs, what);
        return await work(limit.signal);
      },
      wait?.signal,
    );
  }
}

function healthy(seen: Observed, netnsPath: string): NetworkResult | undefined {
  if (seen.broken.length > 0 || seen.mendable.length > 0 || seen.ip === undefined) return undefined;
  return { ip: seen.ip, netnsPath };
}
