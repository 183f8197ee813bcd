// The contract of the control plane: what http/ and the CLI can ask of a host. host/ implements it.
import type { Actor, Role } from "./access.ts";
import type { BotView } from "./bot.ts";
import type { ImageStore, Limits } from "./runtime.ts";
import type { LifecycleEvent, TokenRecord } from "./store.ts";
import type { Wait, WorkspaceProvider } from "./workspace.ts";

/** One thing the host needs, and how it is. */
export interface Check {
  /** Stable name: `containerd`, `runc`, `cni_plugins`, `database`… */
  readonly name: string;
  readonly ok: boolean;
  /** What was found, or what is wrong. */
  readonly detail: string;
  /** What to install or do. */
  readonly hint?: string | undefined;
}

/** The detail of a check whose first attempt is not over. */
export const NOT_STARTED = "not started yet";

export interface Readiness {
  readonly ready: boolean;
  readonly checks: readonly Check[];
}

export interface CreateBot {
  readonly name: string;
  /** As a person types it; normalized by the control plane. Default image when absent. */
  readonly image?: string | undefined;
  readonly limits?: Limits | undefined;
  /** Defaults to the actor. */
  readonly ownerId?: string | undefined;
  /** False leaves it stopped after it was made. */
  readonly start?: boolean | undefined;
}

/** Options of every call that changes a bot: the outcome is awaited unless `async`. */
export interface Change extends Wait {
  readonly actor: Actor;
  readonly idempotencyKey?: string | undefined;
  /** Return once the intent is recorded. */
  readonly async?: boolean | undefined;
}

/** A token just made; the only time its text is known. */
export interface NewToken extends TokenRecord {
  readonly token: string;
}

export interface ControlPlane {
  /** Finds a bot by id or name. @throws Fault not_found "bot not found" */
  bot(ref: string, wait?: Wait): Promise<BotView>;
  /** Those the actor may read, by name. */
  bots(actor: Actor, wait?: Wait): Promise<BotView[]>;
  createBot(input: CreateBot, change: Change): Promise<BotView>;
  /** Removes container, network, data and row. */
  deleteBot(ref: string, change: Change): Promise<void>;
  /** Makes the container exist and run; a running one is success. */
  startBot(ref: string, change: Change): Promise<BotView>;
  stopBot(ref: string, change: Change): Promise<BotView>;
  /** Removes the container and its data but not the bot. */
  deleteContainer(ref: string, change: Change): Promise<void>;
  /** Limits of a bot, changed live when it runs. */
  setLimits(ref: string, limits: Limits, change: Change): Promise<BotView>;
  events(ref: string, limit: number, wait?: Wait): Promise<LifecycleEvent[]>;

  /** Workspaces of running bots. */
  readonly workspaces: WorkspaceProvider;
  /** Images; references are normalized on the way in. */
  readonly images: ImageStore;
  readonly defaultImage: string;
  readonly namespace: string;
  readonly snapshotter: string;

  createToken(token: { name: string; role: Role; bots: readonly string[] }, wait?: Wait): Promise<NewToken>;
  tokens(wait?: Wait): Promise<TokenRecord[]>;
  deleteToken(id: string, wait?: Wait): Promise<boolean>;
  /** The actor behind a bearer token or JWT. @throws Fault unauthenticated */
  authenticate(token: string, wait?: Wait): Promise<Actor>;

  readiness(wait?: Wait): Promise<Readiness>;
  /** Everything `memoh doctor` reports. */
  doctor(wait?: Wait): Promise<Check[]>;
}
