// What a containerd namespace holds, for tests that check what is left.
import type { ContainerdClient } from "../../src/containerd/client.ts";

/** Digests of all content. */
export async function contentOf(client: ContainerdClient): Promise<string[]> {
  const digests: string[] = [];
  for await (const { info } of client.content.list({})) digests.push(...info.map(({ digest }) => digest));
  return digests;
}

/** Refs of unfinished uploads. */
export async function ingestsOf(client: ContainerdClient): Promise<string[]> {
  return (await client.content.listStatuses({})).statuses.map(({ ref }) => ref);
}

/** Names and keys of all snapshots. */
export async function snapshotsOf(client: ContainerdClient, snapshotter = "overlayfs"): Promise<string[]> {
  const names: string[] = [];
  for await (const { info } of client.snapshots.list({ snapshotter }))
    names.push(...info.map(({ name }) => name));
  return names;
}

/** Ids of all leases. */
export async function leasesOf(client: ContainerdClient): Promise<string[]> {
  return (await client.leases.list({})).leases.map(({ id }) => id);
}

/** Runs containerd's collector to its end. */
export async function collectGarbage(client: ContainerdClient): Promise<void> {
  await client.leases.create({ id: "test-gc" });
  await client.leases.delete({ id: "test-gc", sync: true });
}
