// Containers as they are: record, snapshot and task looked at together.
import { BOT_LABEL } from "../core/bot-id.ts";
import type { ObservedContainer } from "../core/runtime.ts";
import type { Container } from "../gen/proto/containerd/containers_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { ContainerdClient } from "./client.ts";
import { recordOf, records } from "./records.ts";
import { dateOf, taskOf } from "./task-state.ts";

/** Looks at one time: enough to hide round trips, few enough to leave the daemon to others. */
const PARALLEL = 8;

/** One container; undefined without a record. */
export async function observe(
  client: ContainerdClient,
  containerId: string,
  signal?: AbortSignal,
): Promise<ObservedContainer | undefined> {
  const record = await recordOf(client, containerId, signal);
  return record === undefined ? undefined : await complete(client, record, signal);
}

/** Every container with the bot label, by id. */
export async function observeAll(
  client: ContainerdClient,
  signal?: AbortSignal,
): Promise<ObservedContainer[]> {
  const containers = await records(client, [`labels."${BOT_LABEL}"`], signal);
  const observed: ObservedContainer[] = [];
  const next = containers[Symbol.iterator]();
  const worker = async () => {
    for (const record of next) observed.push(await complete(client, record, signal));
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return observed.sort((a, b) => (a.id < b.id ? -1 : 1));
}

async function complete(
  client: ContainerdClient,
  record: Container,
  signal: AbortSignal | undefined,
): Promise<ObservedContainer> {
  const [task, snapshotExists] = await Promise.all([
    taskOf(client, record.id, signal),
    hasSnapshot(client, record, signal),
  ]);
  return {
    id: record.id,
    botId: record.labels[BOT_LABEL],
    image: record.image,
    snapshotKey: record.snapshotKey,
    snapshotExists,
    task: task.state,
    pid: task.pid,
    exitStatus: task.exitStatus,
    exitedAt: task.exitedAt,
    createdAt: dateOf(record.createdAt) ?? new Date(0),
    updatedAt: dateOf(record.updatedAt) ?? new Date(0),
  };
}

async function hasSnapshot(
  client: ContainerdClient,
  record: Container,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    await client.snapshots.stat({ snapshotter: record.snapshotter, key: record.snapshotKey }, { signal });
    return true;
  } catch (error) {
    if (Fault.is(error, "not_found")) return false;
    throw error;
  }
}
