// Notices an agent that stops answering in the middle of a stream.
import { Fault } from "../lib/fault.ts";
import type { Lease } from "./route.ts";

/**
 * Cancels a call when the agent lets one step wait too long. Only time between `begin` and `end` counts, so a slow
 * reader or a slow source on this side is no fault of the agent's.
 */
export class Watchdog implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #waiting = false;

  constructor(lease: Lease, botId: string, ms: number) {
    this.#timer = setTimeout(() => {
      if (!this.#waiting) return;
      lease.cancel(
        new Fault("deadline_exceeded", `The agent of bot ${botId} did not go on for ${ms / 1000} s`, {
          hint: "Try again; if the bot stays silent, restart it",
        }),
      );
    }, ms).unref();
  }

  begin(): void {
    this.#waiting = true;
    this.#timer.refresh();
  }

  end(): void {
    this.#waiting = false;
  }

  /** Counts the time until the promise settles. */
  async during<T>(promise: Promise<T>): Promise<T> {
    this.begin();
    try {
      return await promise;
    } finally {
      this.end();
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
