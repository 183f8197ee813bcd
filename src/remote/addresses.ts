// The addresses of bots: one writer, and whoever holds a connection to an old one hears of it first.

import { isIP } from "node:net";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import { SerialQueue } from "../lib/serial-queue.ts";

/** Where a bot is reached, and which start of it. */
export interface Address {
  readonly ip: string;
  readonly bootId: string;
}

export interface AddressOptions {
  /** Keeps the address of a bot over a restart of the host; undefined forgets it. */
  readonly save: (botId: string, address: Address | undefined, wait?: Wait) => Promise<void>;
  /** What was kept. */
  readonly load: (botId: string, wait?: Wait) => Promise<Address | undefined>;
  /** Called when the address or the boot is about to change: connections to the old one must go. */
  readonly onChange: (botId: string) => void;
}

/** A registry whose every change goes through `setContainerIP` and `clear`, one after the other for each bot. */
export class Addresses {
  readonly #options: AddressOptions;
  readonly #known = new Map<string, Address>();
  readonly #queue = new SerialQueue();

  constructor(options: AddressOptions) {
    this.#options = options;
  }

  /**
   * The one writer of a bot's address. The same address and boot again changes nothing and evicts nobody. Until the new
   * one is kept the bot has no address in memory, so a failure in between leaves nobody with a wrong one.
   * @throws Fault invalid_argument when the address is empty or no IP: a bot that cannot be reached is not started
   */
  async setContainerIP(botId: string, ip: string, bootId: string, wait?: Wait): Promise<void> {
    if (isIP(ip) === 0 || bootId === "") {
      throw new Fault(
        "invalid_argument",
        `Cannot set the address of bot ${botId}: ${JSON.stringify(ip)} with boot ${JSON.stringify(bootId)} is none`,
      );
    }
    await this.#queue.run(
      botId,
      async () => {
        const present = this.#known.get(botId);
        if (present?.ip === ip && present.bootId === bootId) return;
        await this.#change(botId, { ip, bootId }, wait);
      },
      wait?.signal,
    );
  }

  /** Forgets a bot's address: it was stopped or deleted. */
  async clear(botId: string, wait?: Wait): Promise<void> {
    await this.#queue.run(
      botId,
      async () => {
        await this.#change(botId, undefined, wait);
      },
      wait?.signal,
    );
  }

  /** The address of a bot, from memory or from what was kept. */
  async get(botId: string, wait?: Wait): Promise<Address | undefined> {
    const present = this.#known.get(botId);
    if (present !== undefined) return present;
    return await this.#queue.run(
      botId,
      async () => {
        const address = this.#known.get(botId) ?? (await this.#options.load(botId, wait));
        if (address !== undefined) this.#known.set(botId, address);
        return address;
      },
      wait?.signal,
    );
  }

  async #change(botId: string, address: Address | undefined, wait: Wait | undefined): Promise<void> {
    this.#known.delete(botId);
    this.#options.onChange(botId);
    await this.#options.save(botId, address, wait);
    if (address !== undefined) this.#known.set(botId, address);
  }
}
