// A CniNetwork with directories of its own on a test host, and an "outside" machine that the host routes to.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CniNetwork, type CniNetworkOptions } from "../../../src/cni/network.ts";
import { mustRun } from "../../../src/lib/command.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { Peer } from "./peer.ts";

/** The host as the outside sees it, and the outside. No route leads from the outside to bots. */
export const HOST_OUTSIDE = "198.51.100.1";
export const OUTSIDE = "198.51.100.2";

let count = 0;

export interface Sandbox extends AsyncDisposable {
  readonly network: CniNetwork;
  readonly bridge: string;
  readonly instance: string;
  readonly runDir: string;
  /** Prefix of the addresses: `10.77.1.` */
  readonly prefix: string;
  /** Another object for the same network, as after a restart of the host. */
  again(options?: Partial<CniNetworkOptions>): CniNetwork;
}

/** A network that is taken down at the end. Nothing is made on the host before it is used. */
export async function sandbox(options: Partial<CniNetworkOptions> = {}): Promise<Sandbox> {
  const number = ++count;
  const runDir = await mkdtemp(join(tmpdir(), "memoh-cni-"));
  const base: CniNetworkOptions = {
    instance: `t${process.pid}-${number}`,
    bridge: `mt${number}br`,
    subnet: `10.77.${number}.0/24`,
    runDir,
    log: silentLogger(),
  };
  const again = (more: Partial<CniNetworkOptions> = {}) => new CniNetwork({ ...base, ...options, ...more });
  const network = again();
  return {
    network,
    bridge: base.bridge,
    instance: base.instance,
    runDir,
    prefix: `10.77.${number}.`,
    again,
    async [Symbol.asyncDispose]() {
      // With the machine's own plugins, whatever the test did to its.
      await again({ pluginDir: "" }).teardownHost();
      await rm(runDir, { recursive: true, force: true });
    },
  };
}

/** A machine beyond the host, on a link of its own. */
export async function outside(): Promise<Peer & { readonly netns: string }> {
  const name = `memoh-out-${process.pid}`;
  await sh(`ip netns add ${name}
    ip link add mtout type veth peer name eth0 netns ${name}
    ip addr add ${HOST_OUTSIDE}/24 dev mtout && ip link set mtout up
    ip -n ${name} addr add ${OUTSIDE}/24 dev eth0 && ip -n ${name} link set eth0 up && ip -n ${name} link set lo up`);
  const netns = `/run/netns/${name}`;
  const peer = new Peer(netns);
  const end = peer[Symbol.asyncDispose].bind(peer);
  return Object.assign(peer, {
    netns,
    async [Symbol.asyncDispose]() {
      await end();
      await sh(`ip netns del ${name}; ip link del mtout 2>/dev/null || true`);
    },
  });
}

/** Runs a shell script on the test host that must succeed. @returns its stdout */
export async function sh(script: string): Promise<string> {
  return (await mustRun(["sh", "-ec", script])).stdout.trim();
}
