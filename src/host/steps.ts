// Steps: the idempotent acts an intent is carried out with, each with a deadline, a journal row and a named failure.
import type { LastError } from "../core/bot.ts";
import { type Code, Fault } from "../lib/fault.ts";
import { deadline } from "../lib/signal.ts";

/** One idempotent act. */
export interface Step {
  readonly name: string;
  readonly deadlineMs: number;
  run(signal: AbortSignal): Promise<void>;
  /** Codes that another attempt cannot mend; PERMANENT when absent. */
  readonly permanent?: readonly Code[];
}

/** A list of steps; those in an inner list run side by side. */
export type Plan = readonly (Step | readonly Step[])[];

/** Codes that say the request itself is wrong, so that trying again changes nothing. */
const PERMANENT: readonly Code[] = [
  "invalid_argument",
  "not_found",
  "permission_denied",
  "unauthenticated",
  "failed_precondition",
  "unimplemented",
  "data_loss",
  "out_of_range",
];

/** A step that failed, with its name and whether another attempt can help. */
export class StepFailure extends Error {
  override readonly name = "StepFailure";
  readonly step: string;
  readonly fault: Fault;
  readonly retryable: boolean;

  constructor(step: string, fault: Fault, retryable: boolean) {
    super(fault.message, { cause: fault });
    this.step = step;
    this.fault = fault;
    this.retryable = retryable;
  }

  /** The failure as it is stored and shown. */
  toLastError(at: Date): LastError {
    const { code, message, hint } = this.fault;
    return { code, message, hint, step: this.step, at, retryable: this.retryable };
  }
}

/**
 * Runs a plan to its end or to its first failure. Every step of a side-by-side list is waited for even when one fails,
 * so that nothing goes on behind the journal's back.
 * @param done called after each step with the milliseconds it took, before the next one begins
 * @throws StepFailure
 */
export async function runPlan(
  plan: Plan,
  signal: AbortSignal,
  done: (step: string, ms: number) => Promise<void>,
): Promise<void> {
  for (const entry of plan) {
    const steps = Array.isArray(entry) ? (entry as readonly Step[]) : [entry as Step];
    const results = await Promise.allSettled(steps.map((step) => runStep(step, signal)));
    for (const [index, result] of results.entries()) {
      const step = steps[index];
      if (result.status === "fulfilled" && step !== undefined) await done(step.name, result.value);
    }
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }
}

async function runStep(step: Step, signal: AbortSignal): Promise<number> {
  const began = performance.now();
  try {
    await deadline(signal, step.deadlineMs, `step ${step.name}`, (limit) => step.run(limit));
    return performance.now() - began;
  } catch (error) {
    const fault = Fault.from(error);
    throw new StepFailure(step.name, fault, !(step.permanent ?? PERMANENT).includes(fault.code));
  }
}
