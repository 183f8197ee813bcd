// Intents: what someone asked for, recorded before anything happens, and the steps that carry it out.
import type { LastError } from "./bot.ts";

export type IntentKind = "create" | "start" | "stop" | "restart" | "delete_container" | "delete_bot";

export type IntentState = "pending" | "running" | "done" | "failed";

export interface Intent {
  readonly id: string;
  readonly botId: string;
  readonly kind: IntentKind;
  readonly state: IntentState;
  /** Names of the steps that are done, in order. */
  readonly stepsDone: readonly string[];
  readonly requestedBy: string;
  readonly idempotencyKey: string | undefined;
  readonly error: LastError | undefined;
  readonly createdAt: Date;
  readonly finishedAt: Date | undefined;
}
