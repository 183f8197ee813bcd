// The end of a session: TERM to every process in it, some time, then KILL until none is left.
import type { Logger } from "../../lib/log.ts";
import { sessionMembers, signalSession } from "../../lib/session.ts";
import { sleep } from "../../lib/signal.ts";

/** How a session is ended. */
export interface SessionEnd {
  /** From TERM to KILL, milliseconds. */
  readonly termMs: number;
  /** Interactive shells ignore TERM; a terminal that hangs up ends them. */
  readonly terminal: boolean;
  readonly log: Logger;
}

/** Until a session that keeps forking under KILL is given up. */
const KILL_MS = 5_000;

/** Ends every process of a session and resolves when they are gone. Never rejects. */
export async function endSession(sid: number, { termMs, terminal, log }: SessionEnd): Promise<void> {
  // CONT, because a stopped process does not act on TERM.
  signalSession(sid, ...(terminal ? (["SIGHUP"] as const) : []), "SIGTERM", "SIGCONT");
  if (await gone(sid, termMs)) return;
  if (await gone(sid, KILL_MS, "SIGKILL")) return;
  log.error({ sid, members: sessionMembers(sid).slice(0, 20) }, "processes of a session survive SIGKILL");
}

/** Waits until a session is empty, signalling whoever is in it at each look. */
async function gone(sid: number, ms: number, signal?: NodeJS.Signals): Promise<boolean> {
  const end = performance.now() + ms;
  for (let pause = 2; ; pause = Math.min(pause * 2, 100)) {
    const members = signal === undefined ? sessionMembers(sid).length : signalSession(sid, signal);
    if (members === 0) return true;
    const left = end - performance.now();
    if (left <= 0) return false;
    await sleep(Math.min(pause, left));
  }
}
