// A bot and its workspace: what was asked for (desired) apart from what is (observed).
import type { Code } from "../lib/fault.ts";
import type { Limits } from "./runtime.ts";

export interface BotRecord {
  readonly id: string;
  readonly name: string;
  readonly ownerId: string;
  readonly createdAt: Date;
}

/** What a person wants of a workspace. */
export type DesiredState = "running" | "stopped" | "absent";

/** Where a workspace is on its way there. */
export type Phase =
  | "pending"
  | "creating"
  | "starting"
  | "running"
  | "stopping"
  | "stopped"
  | "deleting"
  | "failed"
  | "absent";

/** The last thing that went wrong and was not mended since. */
export interface LastError {
  readonly code: Code;
  readonly message: string;
  readonly hint?: string | undefined;
  /** Name of the step that failed. */
  readonly step: string;
  readonly at: Date;
  /** Whether another attempt can help. */
  readonly retryable: boolean;
}

export interface WorkspaceRecord {
  readonly botId: string;
  readonly desired: DesiredState;
  /** Counts changes of what is desired. */
  readonly generation: number;
  readonly image: string;
  readonly limits: Limits;
  // Observed:
  readonly phase: Phase;
  readonly containerId: string;
  readonly snapshotKey: string | undefined;
  readonly ip: string | undefined;
  readonly netnsPath: string | undefined;
  /** Of the task that runs now. */
  readonly bootId: string | undefined;
  /** True from the first time the agent answered: from then on the data is never made from the image again. */
  readonly readyOnce: boolean;
  readonly lastError: LastError | undefined;
  readonly attempts: number;
  readonly nextAttemptAt: Date | undefined;
  readonly updatedAt: Date;
}

/** The observed half of a workspace, as far as one write changes it. `null` clears a value. */
export interface ObservedPatch {
  readonly phase?: Phase;
  readonly snapshotKey?: string | null;
  readonly ip?: string | null;
  readonly netnsPath?: string | null;
  readonly bootId?: string | null;
  readonly readyOnce?: true;
  readonly lastError?: LastError | null;
  readonly attempts?: number;
  readonly nextAttemptAt?: Date | null;
}

/** A bot as people see it. */
export interface BotView extends BotRecord {
  readonly workspace: WorkspaceRecord | undefined;
  /** Bytes its own changes take on disk, as of the last look; undefined before the first. */
  readonly diskBytes?: number | undefined;
}
