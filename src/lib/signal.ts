// Waiting that can be cancelled: deadlines, sleeps and races over AbortSignals.
import { Fault } from "./fault.ts";

/** A signal with its own end: dispose it when the work is done, or its timer stays. */
export interface OwnedSignal extends Disposable {
  readonly signal: AbortSignal;
}

/** The error a deadline aborts with. */
function deadlineFault(what: string, ms: number): Fault {
  return new Fault("deadline_exceeded", `${what}: not done within ${formatMs(ms)}`);
}

function formatMs(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${Math.round(ms / 100) / 10} s`;
}

/**
 * A signal that aborts when the parent does or after `ms`, with a `deadline_exceeded` Fault that names the work.
 * Use with `using`. A parent that is undefined gives a fresh deadline, which is what clean-up runs under.
 */
export function withDeadline(parent: AbortSignal | undefined, ms: number, what: string): OwnedSignal {
  const controller = new AbortController();
  const onParent = () => {
    controller.abort(parent?.reason);
  };
  const timer = setTimeout(() => {
    controller.abort(deadlineFault(what, ms));
  }, ms);
  if (parent?.aborted === true) onParent();
  else parent?.addEventListener("abort", onParent, { once: true });
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      parent?.removeEventListener("abort", onParent);
    },
  };
}

/** Runs work under a deadline and rejects when it passes, even when the work itself ignores its signal. */
export async function deadline<T>(
  parent: AbortSignal | undefined,
  ms: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  using owned = withDeadline(parent, ms, what);
  return await abortable(work(owned.signal), owned.signal);
}

/**
 * Settles with the promise or rejects with the signal's reason, whichever is first. The promise goes on by itself, its
 * late rejection is not unhandled.
 */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => {
    reject(reasonOf(signal));
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Waits `ms`, or rejects with the signal's reason. Does not keep the process alive when `unref` is set. */
export async function sleep(ms: number, signal?: AbortSignal, unref = false): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  if (unref) timer.unref();
  try {
    await abortable(promise, signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Why a signal aborted, as an Error: a Fault stays one, everything else becomes `cancelled`. */
export function reasonOf(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  if (reason instanceof Fault) return reason;
  if (reason instanceof Error && reason.name === "TimeoutError") return Fault.from(reason);
  return new Fault("cancelled", "the operation was cancelled", { cause: reason });
}

/** Throws the reason when the signal has aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw reasonOf(signal);
}
