// Parts a host stands on (database, containerd, network…): each is made right, checked again and again, and healed.
import { type Check, NOT_STARTED } from "../core/control.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { deadline, sleep } from "../lib/signal.ts";

/** One thing the host cannot work without. */
export interface Part {
  readonly name: string;
  /** Makes it right if it is not; cheap when it is. @returns what was found, for people */
  ensure(signal: AbortSignal): Promise<string>;
  /** Name of the part that must have been right once before this one is tried. */
  readonly after?: string;
  /** Milliseconds one attempt may take. */
  readonly deadlineMs: number;
  /** Milliseconds between checks while all is well. */
  readonly everyMs: number;
}

/** Longest wait between two attempts of a part that is down. */
const MAX_BACKOFF_MS = 5_000;

interface PartState {
  readonly part: Part;
  check: Check;
  fault: Fault | undefined;
  /** Resolves when the part is right for the first time. */
  readonly first: PromiseWithResolvers<void>;
}

/** Keeps parts right, side by side; one that stands on another waits for it to be right once. */
export class Parts {
  readonly #states: PartState[];
  readonly #log: Logger;

  constructor(parts: readonly Part[], log: Logger) {
    this.#log = log;
    this.#states = parts.map((part) => ({
      part,
      check: { name: part.name, ok: false, detail: NOT_STARTED },
      fault: undefined,
      first: Promise.withResolvers<void>(),
    }));
  }

  /** Runs until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#states.map((state) => this.#keep(state, signal)));
  }

  /** Resolves when every part has been right once. */
  async allReadyOnce(): Promise<void> {
    await Promise.all(this.#states.map((state) => state.first.promise));
  }

  checks(): Check[] {
    return this.#states.map((state) => state.check);
  }

  /** @throws Fault unavailable with the reason while the part is not right */
  require(name: string): void {
    const state = this.#states.find((candidate) => candidate.part.name === name);
    if (state === undefined || state.check.ok) return;
    throw new Fault("unavailable", `Cannot do this while ${name} is down: ${state.check.detail}`, {
      hint: state.check.hint ?? "memoh doctor tells more; memoh keeps trying",
      cause: state.fault,
    });
  }

  async #keep(state: PartState, signal: AbortSignal): Promise<void> {
    const before = this.#states.find((candidate) => candidate.part.name === state.part.after);
    await Promise.race([before?.first.promise, new Promise((resolve) => onAbort(signal, resolve))]);
    let backoff = 100;
    while (!signal.aborted) {
      const ok = await this.#attempt(state, signal);
      if (ok) backoff = 100;
      else backoff = Math.min(backoff * 2, MAX_BACKOFF_MS);
      try {
        await sleep(ok ? state.part.everyMs : backoff, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  async #attempt(state: PartState, signal: AbortSignal): Promise<boolean> {
    const { part } = state;
    try {
      const detail = await deadline(signal, part.deadlineMs, part.name, (limit) => part.ensure(limit));
      if (!state.check.ok) this.#log.info({ part: part.name, detail }, "part is up");
      state.check = { name: part.name, ok: true, detail };
      state.fault = undefined;
      state.first.resolve();
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const fault = Fault.from(error);
      if (state.check.ok || state.fault?.message !== fault.message) {
        this.#log.error({ part: part.name, code: fault.code, hint: fault.hint, err: error }, "part is down");
      }
      state.check = { name: part.name, ok: false, detail: fault.message, hint: fault.hint };
      state.fault = fault;
      return false;
    }
  }
}

function onAbort(signal: AbortSignal, action: (value: unknown) => void): void {
  if (signal.aborted) action(undefined);
  else signal.addEventListener("abort", action, { once: true });
}
