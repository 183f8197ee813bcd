// Task events of one namespace, over restarts of the daemon, with a word whenever something may have been missed.
import { randomUUID } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import type { RuntimeEvent } from "../core/runtime.ts";
import type { Envelope } from "../gen/proto/containerd/events_pb.ts";
import {
  TaskDeleteSchema,
  TaskExitSchema,
  TaskOOMSchema,
  TaskStartSchema,
} from "../gen/proto/containerd/task_events_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { sleep } from "../lib/signal.ts";
import type { ContainerdClient } from "./client.ts";
import { dateOf } from "./task-state.ts";

const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 5_000;
const PROBE_EVERY_MS = 100;
const PROBE_TOPIC = "/memoh/probe";

/**
 * Events until the signal aborts. Each time a subscription stands, the first one included, `resync` comes first.
 * containerd does not say when a subscription stands, so a probe of our own is published until it comes back.
 * A `delete` may be missing: the shims of containerd 2 at times end before they have told it.
 */
export async function* taskEvents(
  client: ContainerdClient,
  log: Logger,
  signal: AbortSignal,
): AsyncGenerator<RuntimeEvent> {
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      for await (const event of subscription(client, signal)) {
        pause = FIRST_PAUSE_MS;
        yield event;
      }
      log.debug("containerd ended the event stream");
    } catch (error) {
      if (signal.aborted) return;
      // A daemon that is away is told elsewhere; anything else would go on in silence.
      const level = Fault.is(error, "unavailable") ? "debug" : "warn";
      log[level]({ err: error }, "the event stream broke");
    }
    try {
      await sleep(pause * (0.75 + Math.random() / 2), signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    pause = Math.min(pause * 2, MAX_PAUSE_MS);
  }
}

async function* subscription(client: ContainerdClient, signal: AbortSignal): AsyncGenerator<RuntimeEvent> {
  const probe = `${PROBE_TOPIC}/${randomUUID()}`;
  await using stream = client.events.subscribe(
    {
      filters: [
        `namespace=="${client.namespace}",topic~="^/tasks/(start|exit|oom|delete)$"`,
        `namespace=="${client.namespace}",topic=="${probe}"`,
      ],
    },
    { signal },
  );
  const stands = new AbortController();
  const probing = publishUntil(client, probe, AbortSignal.any([stands.signal, stream.over, signal]));
  try {
    for await (const envelope of stream) {
      if (envelope.topic === probe) {
        if (!stands.signal.aborted) yield { kind: "resync" };
        stands.abort();
        continue;
      }
      // Before the probe comes back nothing is promised, and the resync to come covers it.
      if (!stands.signal.aborted) continue;
      const event = eventOf(envelope);
      if (event !== undefined) yield event;
    }
  } finally {
    stands.abort();
    await probing;
  }
}

/** Never fails: a daemon that cannot be reached breaks the stream as well. */
async function publishUntil(client: ContainerdClient, topic: string, over: AbortSignal): Promise<void> {
  const event = { typeUrl: "memoh.probe", value: new Uint8Array() };
  while (!over.aborted) {
    try {
      await client.events.publish({ topic, event }, { signal: over });
      await sleep(PROBE_EVERY_MS, over);
    } catch {
      // The stream's own error says it better.
      await sleep(PROBE_EVERY_MS, over).catch(() => undefined);
    }
  }
}

function eventOf(envelope: Envelope): RuntimeEvent | undefined {
  const value = envelope.event?.value;
  if (value === undefined) return undefined;
  switch (envelope.topic) {
    case "/tasks/start": {
      const { containerId, pid } = fromBinary(TaskStartSchema, value);
      return { kind: "start", containerId, pid };
    }
    case "/tasks/exit": {
      const { containerId, id, exitStatus, exitedAt } = fromBinary(TaskExitSchema, value);
      // Other ids are of processes someone started beside init.
      if (id !== containerId) return undefined;
      return { kind: "exit", containerId, exitStatus, at: dateOf(exitedAt) ?? new Date() };
    }
    case "/tasks/oom":
      return { kind: "oom", containerId: fromBinary(TaskOOMSchema, value).containerId };
    case "/tasks/delete": {
      const { containerId, id } = fromBinary(TaskDeleteSchema, value);
      return id === "" || id === containerId ? { kind: "delete", containerId } : undefined;
    }
    default:
      return undefined;
  }
}
