// The ordinary processes of this machine that the agent started.
import type { ExecSpec } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";
import type { Logger } from "../../lib/log.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import { type CommandBase, resolveCommand } from "./command.ts";
import { endSession } from "./end-session.ts";
import { type EndTimes, LocalExecution } from "./execution.ts";
import { launchWithPipes, launchWithTerminal } from "./launch.ts";

export interface ProcessesOptions extends CommandBase {
  readonly log: Logger;
  /** Shorter ones for tests; the defaults are 5 s from TERM to KILL and 2 s of drain. */
  readonly times?: EndTimes;
  /** Most processes at once. */
  readonly limit?: number;
}

const TIMES: EndTimes = { term: 5_000, drain: 2_000 };
const LIMIT = 512;

/** Starts ordinary processes and ends them all when it is closed. */
export class Processes implements AsyncDisposable {
  readonly #options: ProcessesOptions;
  readonly #running = new Set<LocalExecution>();
  /** Sessions whose leader has ended but which still have processes in the background. */
  readonly #background = new Set<number>();
  #starting = 0;
  #closed = false;

  constructor(options: ProcessesOptions) {
    this.#options = options;
  }

  /** Processes that have not ended yet. */
  get running(): number {
    return this.#running.size;
  }

  /**
   * Starts a process.
   * @throws Fault invalid_argument, not_found, permission_denied, failed_precondition, resource_exhausted or unavailable
   */
  async exec(spec: ExecSpec): Promise<LocalExecution> {
    throwIfAborted(spec.signal);
    this.#refuseWhenClosed();
    const { log, times = TIMES, limit = LIMIT } = this.#options;
    if (this.#running.size + this.#starting >= limit) {
      throw new Fault("resource_exhausted", `Cannot run the command: ${limit} are running already`, {
        hint: "Wait until some of them have ended, or end them",
      });
    }
    this.#starting++;
    try {
      using command = resolveCommand(spec, this.#options);
      const child =
        spec.pty === undefined ? await launchWithPipes(command) : await launchWithTerminal(command, spec.pty);
      const execution = new LocalExecution(child, {
        log,
        times,
        terminal: spec.pty !== undefined,
        timeoutMs: spec.timeoutMs,
        signal: spec.signal,
        onClosed: (ended) => {
          this.#forget(ended);
        },
      });
      this.#running.add(execution);
      if (this.#closed) await execution[Symbol.asyncDispose]();
      this.#refuseWhenClosed();
      return execution;
    } finally {
      this.#starting--;
    }
  }

  /** Refuses new processes and ends the running ones, with what earlier ones left in the background. */
  async close(termMs = this.#options.times?.term ?? TIMES.term): Promise<void> {
    this.#closed = true;
    const reason = new Fault("unavailable", "the agent is stopping");
    const { log } = this.#options;
    await Promise.all([
      ...[...this.#running].map((execution) => execution.interrupt(reason, termMs)),
      ...[...this.#background].map((sid) => endSession(sid, { termMs, terminal: false, log })),
    ]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #refuseWhenClosed(): void {
    if (this.#closed) throw new Fault("unavailable", "Cannot run the command: the agent is stopping");
  }

  #forget(execution: LocalExecution): void {
    this.#running.delete(execution);
    this.#background.add(execution.pid);
    for (const sid of this.#background) {
      if (!groupExists(sid)) this.#background.delete(sid);
    }
  }
}

/** A non-interactive shell's background jobs stay in its group, and an existing group keeps its number from reuse. */
function groupExists(pgid: number): boolean {
  try {
    process.kill(-pgid, 0);
    return true;
  } catch {
    return false;
  }
}
