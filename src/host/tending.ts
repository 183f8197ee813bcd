// Slow care of every bot, one after the other: disk usage is measured, certificates of running agents are renewed.
import type { Runtime } from "../core/runtime.ts";
import type { Store } from "../core/store.ts";
import type { Logger } from "../lib/log.ts";
import { sleep } from "../lib/signal.ts";
import type { Lifecycle } from "./lifecycle.ts";

const TEND_MS = 60_000;

/** What tending works with. */
export interface TendingParts {
  readonly lifecycle: Pick<Lifecycle, "renewIdentity">;
  readonly runtime: Pick<Runtime, "usage">;
  readonly store: () => Pick<Store, "workspaces">;
  readonly log: Logger;
}

/** Looks after bots and remembers what it measured. */
export class Tending {
  readonly #parts: TendingParts;
  #diskBytes: ReadonlyMap<string, number> = new Map();

  constructor(parts: TendingParts) {
    this.#parts = parts;
  }

  /** Bytes a bot's changes take on disk, as of the last look. */
  diskBytes(botId: string): number | undefined {
    return this.#diskBytes.get(botId);
  }

  /** Runs until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        try {
          await this.#round(signal);
        } catch (error) {
          if (signal.aborted) throw error;
          this.#parts.log.debug({ err: error }, "cannot tend the bots now");
        }
        await sleep(TEND_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { lifecycle, log, runtime, store } = this.#parts;
    const measured = new Map<string, number>();
    for (const workspace of await store().workspaces.list({ signal })) {
      const usage = await runtime.usage(workspace.containerId, { signal });
      if (usage !== undefined) measured.set(workspace.botId, usage.bytes);
      if (workspace.phase === "running" && (await lifecycle.renewIdentity(workspace))) {
        log.info({ botId: workspace.botId }, "renewed the certificate of an agent");
      }
    }
    this.#diskBytes = measured;
  }
}
