// One-time tickets: a browser cannot send headers with a WebSocket, and a token must never stand in a URL.
import { randomBytes } from "node:crypto";
import type { Actor } from "../core/access.ts";

const LIFE_MS = 30_000;
const MAX_OPEN = 10_000;

/** Tickets that were issued and not used yet. */
export class Tickets {
  readonly #open = new Map<string, { readonly actor: Actor; readonly until: number }>();

  issue(actor: Actor): string {
    const now = Date.now();
    for (const [ticket, { until }] of this.#open) {
      // In order of issue, so the first that lives ends the sweep.
      if (until > now && this.#open.size < MAX_OPEN) break;
      this.#open.delete(ticket);
    }
    const ticket = randomBytes(24).toString("base64url");
    this.#open.set(ticket, { actor, until: now + LIFE_MS });
    return ticket;
  }

  /** The actor of a ticket; it is used up by asking. */
  redeem(ticket: string): Actor | undefined {
    const found = this.#open.get(ticket);
    this.#open.delete(ticket);
    return found !== undefined && found.until > Date.now() ? found.actor : undefined;
  }
}
