// The contract of the store: what memoh knows and must not lose. store/ keeps it in Postgres.
import type { Role } from "./access.ts";
import type { BotRecord, DesiredState, LastError, ObservedPatch, WorkspaceRecord } from "./bot.ts";
import type { Intent, IntentKind } from "./intent.ts";
import type { Limits } from "./runtime.ts";
import type { Wait } from "./workspace.ts";

export interface BotStore {
  /** @throws Fault already_exists when the name is taken */
  create(bot: { id: string; name: string; ownerId: string }, wait?: Wait): Promise<BotRecord>;
  get(id: string, wait?: Wait): Promise<BotRecord | undefined>;
  getByName(name: string, wait?: Wait): Promise<BotRecord | undefined>;
  /** By name. */
  list(wait?: Wait): Promise<BotRecord[]>;
  /**
   * Removes the bot's row and, by cascade, what hangs on it except events and intents, which are history; open intents
   * of a bot that is gone fail, but for its own deletion, which is still to be finished.
   */
  delete(id: string, wait?: Wait): Promise<void>;
}

export interface WorkspaceStore {
  /** Makes the row (desired running or stopped, phase pending) unless it exists; also the original's containers row. */
  create(
    workspace: { botId: string; containerId: string; image: string; limits: Limits; desired: DesiredState },
    wait?: Wait,
  ): Promise<WorkspaceRecord>;
  get(botId: string, wait?: Wait): Promise<WorkspaceRecord | undefined>;
  getByContainer(containerId: string, wait?: Wait): Promise<WorkspaceRecord | undefined>;
  list(wait?: Wait): Promise<WorkspaceRecord[]>;
  /** Changes what is wanted and counts the generation up. */
  desire(botId: string, desired: DesiredState, wait?: Wait): Promise<WorkspaceRecord>;
  setLimits(botId: string, limits: Limits, wait?: Wait): Promise<WorkspaceRecord>;
  /** Narrow update of the observed half: only the named fields change. Keeps containers.status in step. */
  observe(botId: string, patch: ObservedPatch, wait?: Wait): Promise<WorkspaceRecord>;
  delete(botId: string, wait?: Wait): Promise<void>;
}

export interface IntentStore {
  /** The same idempotency key of the same bot is the same intent; for another kind it is refused. */
  record(
    intent: { botId: string; kind: IntentKind; requestedBy: string; idempotencyKey?: string | undefined },
    wait?: Wait,
  ): Promise<Intent>;
  get(id: string, wait?: Wait): Promise<Intent | undefined>;
  /** Pending and running ones, oldest first. */
  open(wait?: Wait): Promise<Intent[]>;
  /** Newest first. */
  listByBot(botId: string, limit: number, wait?: Wait): Promise<Intent[]>;
  begin(id: string, wait?: Wait): Promise<void>;
  stepDone(id: string, step: string, wait?: Wait): Promise<void>;
  finish(id: string, error: LastError | undefined, wait?: Wait): Promise<void>;
}

export interface TokenRecord {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly botIds: readonly string[];
  readonly userId: string;
  readonly createdAt: Date;
  readonly lastUsedAt: Date | undefined;
}

export interface TokenStore {
  /** @param hash SHA-256 of the token; the token itself is never stored */
  create(
    token: { name: string; role: Role; botIds: readonly string[]; userId: string; hash: Buffer },
    wait?: Wait,
  ): Promise<TokenRecord>;
  findByHash(hash: Buffer, wait?: Wait): Promise<TokenRecord | undefined>;
  list(wait?: Wait): Promise<TokenRecord[]>;
  delete(id: string, wait?: Wait): Promise<boolean>;
}

export interface LifecycleEvent {
  readonly id: string;
  readonly botId: string;
  readonly containerId: string;
  readonly type: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly at: Date;
}

export interface EventStore {
  add(
    event: { botId: string; containerId: string; type: string; payload: object },
    wait?: Wait,
  ): Promise<void>;
  /** Newest first. */
  list(botId: string, limit: number, wait?: Wait): Promise<LifecycleEvent[]>;
}

export interface SettingStore {
  get(key: string, wait?: Wait): Promise<string | undefined>;
  /** Stores the value unless the key has one. @returns the value that stands */
  setOnce(key: string, value: string, wait?: Wait): Promise<string>;
}

/** Everything under one connection pool. */
export interface Store extends AsyncDisposable {
  readonly bots: BotStore;
  readonly workspaces: WorkspaceStore;
  readonly intents: IntentStore;
  readonly tokens: TokenStore;
  readonly events: EventStore;
  readonly settings: SettingStore;
  /** Makes the user row exist (users are minimal: id, name, role). */
  ensureUser(user: { id: string; name: string; role: Role }, wait?: Wait): Promise<void>;
  /** Resolves when the database answers. */
  ping(wait?: Wait): Promise<void>;
}
