// The control plane: checks what is asked, records it as an intent and answers with its outcome.
import { randomUUID } from "node:crypto";
import type { HostConfig } from "../config/host-config.ts";
import { type Actor, mayAccess, type Role } from "../core/access.ts";
import type { BotRecord, BotView } from "../core/bot.ts";
import { checkBotName, containerIdOf, isBotId } from "../core/bot-id.ts";
import type { Change, Check, ControlPlane, CreateBot, NewToken, Readiness } from "../core/control.ts";
import { normalizeImageRef, withDefaultTag } from "../core/image-ref.ts";
import type { IntentKind } from "../core/intent.ts";
import type { ImageStore, Limits, Runtime } from "../core/runtime.ts";
import type { LifecycleEvent, Store, TokenRecord } from "../core/store.ts";
import type { Wait, Workspace, WorkspaceProvider } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import { requireDiskSpace } from "./disk.ts";
import type { Parts } from "./parts.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Tending } from "./tending.ts";
import type { Tokens } from "./tokens.ts";

/** What the control plane stands on. */
export interface ControlPlaneParts {
  readonly config: HostConfig;
  readonly parts: Parts;
  readonly store: () => Store;
  readonly runtime: Runtime;
  readonly reconciler: Reconciler;
  readonly tending: Tending;
  readonly tokens: Tokens;
  readonly pool: WorkspaceProvider;
  readonly doctor: (wait?: Wait) => Promise<Check[]>;
}

const LIMIT_BOUNDS = {
  memory: [32 * 2 ** 20, 2 ** 50],
  pids: [16, 4_194_304],
  cpus: [0.01, 4096],
} as const;

/** The host's implementation of core's ControlPlane. */
export class HostControlPlane implements ControlPlane {
  readonly #parts: ControlPlaneParts;
  readonly workspaces: WorkspaceProvider;

  constructor(parts: ControlPlaneParts) {
    this.#parts = parts;
    this.workspaces = { workspace: (botId, wait) => this.#workspace(botId, wait) };
  }

  get images(): ImageStore {
    return this.#parts.runtime.images;
  }

  get defaultImage(): string {
    return this.#parts.config.image.default;
  }

  get namespace(): string {
    return this.#parts.config.containerd.namespace;
  }

  get snapshotter(): string {
    return this.#parts.config.containerd.snapshotter;
  }

  async bot(ref: string, wait?: Wait): Promise<BotView> {
    const record = await this.#find(ref, wait);
    return {
      ...record,
      workspace: await this.#parts.store().workspaces.get(record.id, wait),
      diskBytes: this.#parts.tending.diskBytes(record.id),
    };
  }

  async bots(actor: Actor, wait?: Wait): Promise<BotView[]> {
    const [records, workspaces] = await Promise.all([
      this.#parts.store().bots.list(wait),
      this.#parts.store().workspaces.list(wait),
    ]);
    const byBot = new Map(workspaces.map((workspace) => [workspace.botId, workspace]));
    return records
      .filter((record) => mayAccess(actor, record, "read"))
      .map((record) => ({
        ...record,
        workspace: byBot.get(record.id),
        diskBytes: this.#parts.tending.diskBytes(record.id),
      }));
  }

  async createBot(input: CreateBot, change: Change): Promise<BotView> {
    const { config, reconciler } = this.#parts;
    const name = checkBotName(input.name);
    const limits = this.#limits(input.limits ?? {});
    const image = withDefaultTag(normalizeImageRef(input.image ?? config.image.default));
    this.#parts.parts.require("containerd");
    this.#parts.parts.require("network");
    await requireDiskSpace(config.dataDir, config.limits.diskReserve);
    const store = this.#parts.store();
    if ((await store.bots.getByName(name, change)) !== undefined) throw nameTaken(name);
    // A wrong image is found out before anything is recorded.
    await this.#requireImage(image, change);

    const ownerId = input.ownerId ?? change.actor.id;
    await store.ensureUser({ id: ownerId, name: ownerId, role: change.actor.role }, change);
    const bot = await store.bots.create({ id: randomUUID(), name, ownerId }, change);
    await store.workspaces.create({
      botId: bot.id,
      containerId: containerIdOf(bot.id),
      image,
      limits,
      desired: (input.start ?? true) ? "running" : "stopped",
    });
    try {
      await this.#submit(bot.id, "create", change);
    } catch (error) {
      const { workspace } = await this.bot(bot.id);
      // Permanent: it can never work as asked, so nothing of it stays. Retryable: memoh goes on trying.
      if (workspace?.lastError?.retryable === false && !workspace.readyOnce) {
        const intent = await reconciler.submit({ botId: bot.id, kind: "delete_bot", requestedBy: "memoh" });
        await reconciler.outcome(intent);
      }
      throw error;
    }
    return await this.bot(bot.id);
  }

  async deleteBot(ref: string, change: Change): Promise<void> {
    const bot = await this.bot(ref, change);
    if (bot.workspace === undefined) await this.#parts.store().bots.delete(bot.id, change);
    else await this.#submit(bot.id, "delete_bot", change);
  }

  async startBot(ref: string, change: Change): Promise<BotView> {
    const { config } = this.#parts;
    const bot = await this.bot(ref, change);
    await requireDiskSpace(config.dataDir, config.limits.diskReserve);
    if (bot.workspace === undefined) {
      const image = withDefaultTag(normalizeImageRef(config.image.default));
      await this.#requireImage(image, change);
      await this.#parts.store().workspaces.create({
        botId: bot.id,
        containerId: containerIdOf(bot.id),
        image,
        limits: this.#limits({}),
        desired: "running",
      });
    }
    await this.#submit(bot.id, "start", change);
    return await this.bot(bot.id);
  }

  async stopBot(ref: string, change: Change): Promise<BotView> {
    const bot = await this.bot(ref, change);
    if (bot.workspace === undefined) throw new Fault("not_found", "container not found for bot");
    await this.#submit(bot.id, "stop", change);
    return await this.bot(bot.id);
  }

  async deleteContainer(ref: string, change: Change): Promise<void> {
    const bot = await this.bot(ref, change);
    if (bot.workspace !== undefined) await this.#submit(bot.id, "delete_container", change);
  }

  async setLimits(ref: string, limits: Limits, change: Change): Promise<BotView> {
    const bot = await this.bot(ref, change);
    if (bot.workspace === undefined) throw new Fault("not_found", "container not found for bot");
    const merged = this.#limits({ ...bot.workspace.limits, ...limits });
    await this.#parts.store().workspaces.setLimits(bot.id, merged, change);
    if (bot.workspace.phase === "running") {
      await this.#parts.runtime.updateLimits(bot.workspace.containerId, merged, change);
    }
    return await this.bot(bot.id);
  }

  async events(ref: string, limit: number, wait?: Wait): Promise<LifecycleEvent[]> {
    const bot = await this.#find(ref, wait);
    return await this.#parts.store().events.list(bot.id, limit, wait);
  }

  async createToken(
    token: { name: string; role: Role; bots: readonly string[] },
    wait?: Wait,
  ): Promise<NewToken> {
    const botIds = await Promise.all(token.bots.map(async (ref) => (await this.#find(ref, wait)).id));
    return await this.#parts.tokens.create({ name: token.name, role: token.role, botIds }, wait);
  }

  async tokens(wait?: Wait): Promise<TokenRecord[]> {
    return await this.#parts.store().tokens.list(wait);
  }

  async deleteToken(id: string, wait?: Wait): Promise<boolean> {
    return await this.#parts.store().tokens.delete(id, wait);
  }

  async authenticate(token: string, wait?: Wait): Promise<Actor> {
    return await this.#parts.tokens.authenticate(token, wait);
  }

  readiness(): Promise<Readiness> {
    const checks = this.#parts.parts.checks();
    return Promise.resolve({ ready: checks.every((check) => check.ok), checks });
  }

  async doctor(wait?: Wait): Promise<Check[]> {
    // What runs says more than what is installed.
    const byName = new Map(
      [...(await this.#parts.doctor(wait)), ...this.#parts.parts.checks()].map((check) => [
        check.name,
        check,
      ]),
    );
    return [...byName.values()];
  }

  async #submit(botId: string, kind: IntentKind, change: Change): Promise<void> {
    const { reconciler, parts } = this.#parts;
    parts.require("containerd");
    const intent = await reconciler.submit(
      { botId, kind, requestedBy: change.actor.id, idempotencyKey: change.idempotencyKey },
      change.signal,
    );
    if (change.async !== true) await reconciler.outcome(intent, change.signal);
  }

  async #find(ref: string, wait: Wait | undefined): Promise<BotRecord> {
    this.#parts.parts.require("database");
    const { bots } = this.#parts.store();
    const found = isBotId(ref) ? await bots.get(ref, wait) : await bots.getByName(ref, wait);
    if (found === undefined) {
      throw new Fault("not_found", "bot not found", { hint: "List the bots with: memoh bot list" });
    }
    return found;
  }

  async #workspace(botId: string, wait: Wait | undefined): Promise<Workspace> {
    try {
      return await this.#parts.pool.workspace(botId, wait);
    } catch (error) {
      if (!Fault.is(error, "failed_precondition", "not_found")) throw error;
      const bot = await this.bot(botId, wait);
      const { workspace } = bot;
      if (workspace === undefined) throw new Fault("not_found", "container not found for bot");
      if (workspace.phase === "running") throw error;
      const why = workspace.lastError === undefined ? "" : ` (${workspace.lastError.message})`;
      throw new Fault("failed_precondition", `Cannot reach bot ${bot.name}: it is ${workspace.phase}${why}`, {
        hint:
          workspace.desired === "running"
            ? "Wait until it runs: memoh bot show"
            : `Start it: memoh bot start ${bot.name}`,
        cause: error,
      });
    }
  }

  async #requireImage(image: string, change: Change): Promise<void> {
    const { images } = this.#parts.runtime;
    if ((await images.get(image, change)) !== undefined) return;
    try {
      await images.pull(image, { signal: change.signal });
    } catch (error) {
      const fault = Fault.from(error);
      if (image !== withDefaultTag(normalizeImageRef(this.#parts.config.image.default))) throw fault;
      throw new Fault(fault.code, `Cannot find the default image ${image}: ${fault.message}`, {
        hint: "Make it with: memoh image build",
        cause: error,
      });
    }
  }

  #limits(given: Limits): Limits {
    const { config } = this.#parts;
    for (const [name, [low, high]] of Object.entries(LIMIT_BOUNDS)) {
      const value = given[name as keyof Limits];
      if (value !== undefined && value !== 0 && !(value >= low && value <= high)) {
        throw new Fault(
          "invalid_argument",
          `Cannot set the limit ${name} to ${value}: it must be ${low} to ${high}`,
        );
      }
    }
    const cpus = given.cpus ?? config.limits.cpus;
    return {
      memory: given.memory ?? config.limits.memory,
      pids: given.pids ?? config.limits.pids,
      ...(cpus > 0 ? { cpus } : {}),
    };
  }
}

function nameTaken(name: string): Fault {
  return new Fault("already_exists", `Cannot create bot ${name}: the name is taken`, {
    hint: `Choose another name, or use the bot that is there: memoh bot show ${name}`,
  });
}
