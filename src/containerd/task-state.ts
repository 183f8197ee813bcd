// The state of a container's task as containerd tells it at this moment.
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { TaskState } from "../core/runtime.ts";
import { Status } from "../gen/proto/containerd/task_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { ContainerdServices } from "./client.ts";

export interface TaskView {
  readonly state: TaskState;
  /** 0 without a task. */
  readonly pid: number;
  /** When stopped. */
  readonly exitStatus: number | undefined;
  readonly exitedAt: Date | undefined;
}

const NONE: TaskView = { state: "none", pid: 0, exitStatus: undefined, exitedAt: undefined };
/** A shim that does not answer must not hold a look at all the others. */
const GET_MS = 10_000;

/** Asks for the exact task; lists ask every shim and answer late. */
export async function taskOf(
  services: Pick<ContainerdServices, "tasks">,
  containerId: string,
  signal?: AbortSignal,
): Promise<TaskView> {
  try {
    const { process } = await services.tasks.get({ containerId }, { signal, timeoutMs: GET_MS });
    if (process === undefined) return NONE;
    const state = stateOf(process.status);
    if (state !== "stopped") return { state, pid: process.pid, exitStatus: undefined, exitedAt: undefined };
    return {
      state,
      pid: process.pid,
      exitStatus: process.exitStatus,
      exitedAt: dateOf(process.exitedAt),
    };
  } catch (error) {
    if (Fault.is(error, "not_found")) return NONE;
    throw error;
  }
}

/** Unknown counts as running: what runs is never committed, removed or replaced. */
function stateOf(status: Status): TaskState {
  switch (status) {
    case Status.CREATED:
      return "created";
    case Status.STOPPED:
      return "stopped";
    case Status.PAUSED:
    case Status.PAUSING:
      return "paused";
    default:
      return "running";
  }
}

/** A time of containerd; undefined for Go's zero time. */
export function dateOf(time: Timestamp | undefined): Date | undefined {
  return time === undefined || time.seconds <= 0n ? undefined : timestampDate(time);
}
