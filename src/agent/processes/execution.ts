// One running process: its output as events, its input, its time limit and its end.
import type { ExecEvent, Execution, ExitStatus, TerminalSize } from "../../core/workspace.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import type { Logger } from "../../lib/log.ts";
import { abortable, reasonOf } from "../../lib/signal.ts";
import { checkSignal } from "./command.ts";
import { endSession } from "./end-session.ts";
import type { Child, ChildExit } from "./launch.ts";
import { OutputMerge } from "./output.ts";

/** How long the parts of an ending take, milliseconds. */
export interface EndTimes {
  /** From TERM to KILL. */
  readonly term: number;
  /** Wait for pipes that somebody holds after the process ended. */
  readonly drain: number;
}

/** Longest timer of the runtimes (24 days); longer limits are cut to it. */
const MAX_TIMER = 2 ** 31 - 1;

export interface ExecutionOptions {
  readonly log: Logger;
  readonly times: EndTimes;
  readonly terminal: boolean;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** Called once, when nothing is left to do. */
  readonly onClosed: (execution: LocalExecution) => void;
}

/**
 * A process that lives with its owner. A time limit, the signal, or disposing before its exit was read end everything in
 * its session; after a normal exit, what it left in the background goes on, as with any shell.
 */
export class LocalExecution implements Execution {
  readonly pid: number;
  readonly events: AsyncIterable<ExecEvent>;
  readonly #child: Child;
  readonly #options: ExecutionOptions;
  readonly #output: OutputMerge;
  readonly #over = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  #exited = false;
  #timedOut = false;
  #complete = false;
  #ending: Promise<void> | undefined;
  #disposing: Promise<void> | undefined;

  constructor(child: Child, options: ExecutionOptions) {
    this.#child = child;
    this.#options = options;
    this.pid = child.pid;
    this.#output = new OutputMerge(child.outputs, options.times.drain);
    this.events = this.#run();
    void child.exited.then(() => {
      this.#exited = true;
      clearTimeout(this.#timer);
      this.#output.processEnded();
    });
    const { timeoutMs, signal } = options;
    if (timeoutMs !== undefined) {
      this.#timer = setTimeout(this.#onTimeout, Math.min(timeoutMs, MAX_TIMER));
    }
    if (signal?.aborted === true) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  async write(data: Uint8Array): Promise<void> {
    await this.#child.write(data);
  }

  end(): Promise<void> {
    this.#child.endInput();
    return Promise.resolve();
  }

  async resize(size: TerminalSize): Promise<void> {
    await Promise.resolve();
    this.#child.resize(size);
  }

  async kill(name: string): Promise<void> {
    await Promise.resolve();
    const signal = checkSignal(name);
    if (this.#exited) throw new Fault("failed_precondition", `Cannot send ${name}: the process has ended`);
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      if (errnoOf(error) !== "ESRCH") throw faultFromErrno(error, `Cannot send ${name}`);
    }
  }

  /** Ends everything in the session and waits until it is gone. `events` then throws the reason. */
  async interrupt(reason: Error, termMs = this.#options.times.term): Promise<void> {
    if (this.#complete && this.#ending === undefined) return;
    this.#over.abort(reason);
    this.#output.fail(reason);
    await this.#endSession(termMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async *#run(): AsyncGenerator<ExecEvent> {
    for (;;) {
      const chunk = await this.#output.next();
      if (chunk === undefined) break;
      yield chunk;
    }
    const exit = await abortable(this.#child.exited, this.#over.signal);
    this.#complete = true;
    yield { kind: "exit", status: this.#status(exit) };
  }

  #status(exit: ChildExit): ExitStatus {
    return {
      // A process that turns TERM into success must not look successful when it was cut short.
      code: this.#timedOut ? -1 : (exit.code ?? -1),
      signal: exit.signal ?? undefined,
      timedOut: this.#timedOut,
    };
  }

  readonly #onTimeout = () => {
    this.#timedOut = true;
    void this.#endSession(this.#options.times.term);
  };

  readonly #onAbort = () => {
    const { signal } = this.#options;
    if (signal !== undefined) void this.interrupt(reasonOf(signal));
  };

  async #endSession(termMs: number): Promise<void> {
    const { terminal, log } = this.#options;
    // A second ending, with less patience, runs beside the first; both are over when the session is empty.
    const endings = Promise.all([this.#ending, endSession(this.pid, { termMs, terminal, log })]);
    this.#ending = endings.then(() => undefined);
    await this.#ending;
  }

  async #dispose(): Promise<void> {
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    if (!this.#complete) await this.interrupt(new Fault("cancelled", "the process was ended by its owner"));
    await this.#child.close();
    // After a timeout the answer does not wait for those that ignore TERM, but their end is seen to.
    const { onClosed } = this.#options;
    if (this.#ending === undefined) onClosed(this);
    else
      void this.#ending.finally(() => {
        onClosed(this);
      });
  }
}
