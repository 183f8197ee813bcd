// The contract of a bot's network: an attachment that outlives its tasks.
import type { Wait } from "./workspace.ts";

/** What a setup gives: the address the agent is reached at. */
export interface NetworkResult {
  readonly ip: string;
  readonly netnsPath: string;
}

/** One finding of a check, and whether it was mended. */
export interface NetworkFinding {
  readonly what: string;
  readonly repaired: boolean;
}

export interface Network {
  /** Where a container's network namespace stands, whether it is there or not. */
  netnsPathOf(containerId: string): string;
  /** Makes bridge, forwarding and firewall rules right; run at start and by the sweep. Idempotent. */
  ensureHost(wait?: Wait): Promise<NetworkFinding[]>;
  /**
   * Attaches a container. A live and healthy attachment is returned as it is, with its address; anything else is
   * removed (failures of removing never block) and made anew.
   */
  setup(containerId: string, wait?: Wait): Promise<NetworkResult>;
  /** The attachment if it is live and healthy; touches nothing. */
  inspect(containerId: string, wait?: Wait): Promise<NetworkResult | undefined>;
  /** Detaches, frees the address and removes the namespace. Nothing there is success. */
  remove(containerId: string, wait?: Wait): Promise<void>;
  /** Removes namespaces and leases of containers that are not live any more, asking again just before each. */
  reclaim(
    live: { has(containerId: string): boolean | Promise<boolean> },
    wait?: Wait,
  ): Promise<NetworkFinding[]>;
  /** Container ids with a namespace or an address lease. */
  list(wait?: Wait): Promise<string[]>;
}
