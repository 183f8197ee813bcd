// One process far away: its output as events, its stdin, its end.
import { constants } from "node:os";
import type { ExecEvent, Execution, ExitStatus, TerminalSize } from "../core/workspace.ts";
import { type ExecOutput, ExecOutput_Stream } from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { BidiStream } from "../rpc/client.ts";
import { agentFault, garbage } from "./agent-fault.ts";
import type { AgentClient, Lease } from "./route.ts";
import { CHUNK, wireSize } from "./wire.ts";

type ExecStream = ReturnType<AgentClient["exec"]>;
type ExecMessage = Parameters<ExecStream["write"]>[0];

const SIGNAL = /^SIG[A-Z0-9+]{1,12}$/;

/** Speaks the Exec stream of a process that has started. Leaving the events does not end it, disposing does. */
export class RemoteExecution implements Execution {
  readonly events: AsyncIterable<ExecEvent>;
  readonly #stream: BidiStream<ExecMessage, ExecOutput>;
  readonly #lease: Lease;
  readonly #botId: string;
  readonly #terminal: boolean;
  #stdinOpen = true;
  #exited = false;

  constructor(
    stream: ExecStream,
    lease: Lease,
    about: { readonly botId: string; readonly terminal: boolean },
  ) {
    this.#stream = stream;
    this.#lease = lease;
    this.#botId = about.botId;
    this.#terminal = about.terminal;
    const messages = stream.responses[Symbol.asyncIterator]();
    const next = async () => await this.#next(messages);
    this.events = { [Symbol.asyncIterator]: () => ({ next }) };
  }

  async write(data: Uint8Array): Promise<void> {
    this.#needStdin();
    for (let start = 0; start < data.length; start += CHUNK) {
      await this.#send({ stdinData: data.subarray(start, start + CHUNK) });
    }
  }

  async end(): Promise<void> {
    if (!this.#stdinOpen) return;
    this.#stdinOpen = false;
    // A process that is gone has no stdin left to close.
    if (this.#over) return;
    await this.#send({ closeStdin: true });
  }

  async resize(size: TerminalSize): Promise<void> {
    const resize = wireSize(size);
    if (!this.#terminal) {
      throw new Fault("failed_precondition", "Cannot change the terminal size: the command has no terminal");
    }
    await this.#send({ resize });
  }

  async kill(signal: string): Promise<void> {
    if (!Object.hasOwn(constants.signals, signal)) {
      throw new Fault("invalid_argument", `Cannot send ${JSON.stringify(signal)}: no such signal`, {
        hint: "Use a name such as SIGINT, SIGTERM or SIGKILL",
      });
    }
    if (this.#exited) {
      throw new Fault("failed_precondition", `Cannot send ${signal}: the process has ended`);
    }
    await this.#send({ signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stdinOpen = false;
    await this.#stream[Symbol.asyncDispose]();
  }

  get #over(): boolean {
    return this.#exited || this.#stream.responses.over.aborted;
  }

  #needStdin(): void {
    if (this.#stdinOpen && !this.#exited) return;
    throw new Fault("failed_precondition", "Cannot write to the command: its stdin is closed");
  }

  async #send(message: ExecMessage): Promise<void> {
    try {
      await this.#stream.write(message);
    } catch (error) {
      // `cancelled` without our own signal is a stream that ended well.
      if (this.#exited || (Fault.is(error, "cancelled") && !this.#lease.signal.aborted)) {
        throw new Fault("failed_precondition", "Cannot reach the command: it has ended", { cause: error });
      }
      throw agentFault(error, this.#botId, this.#lease.signal);
    }
  }

  async #next(messages: AsyncIterator<ExecOutput>): Promise<IteratorResult<ExecEvent>> {
    for (;;) {
      // The exit is the last event whatever the agent sends after it.
      if (this.#exited) {
        await this[Symbol.asyncDispose]();
        return { done: true, value: undefined };
      }
      const message = await this.#receive(messages);
      switch (message.stream) {
        case ExecOutput_Stream.STDOUT:
          if (message.data.length > 0) return { done: false, value: { kind: "stdout", data: message.data } };
          break;
        case ExecOutput_Stream.STDERR:
          if (message.data.length > 0) return { done: false, value: { kind: "stderr", data: message.data } };
          break;
        case ExecOutput_Stream.EXIT: {
          const status = this.#status(message);
          this.#exited = true;
          return { done: false, value: { kind: "exit", status } };
        }
        default:
          await this[Symbol.asyncDispose]();
          throw garbage(this.#botId, `output of a stream numbered ${String(message.stream)}`);
      }
    }
  }

  async #receive(messages: AsyncIterator<ExecOutput>): Promise<ExecOutput> {
    let cause: unknown;
    try {
      const result = await messages.next();
      if (result.done !== true) return result.value;
    } catch (error) {
      const fault = agentFault(error, this.#botId, this.#lease.signal);
      if (fault.code !== "unavailable") throw fault;
      cause = fault;
    }
    // Never taken for an exit: nobody saw how the command ended.
    throw new Fault(
      "unavailable",
      `The command in bot ${this.#botId} was interrupted${cause instanceof Fault ? `: ${cause.message}` : " without saying how it ended"}`,
      { cause, hint: "It was ended together with its connection; run it again" },
    );
  }

  #status(message: ExecOutput): ExitStatus {
    const signal = message.signal === "" ? undefined : message.signal;
    const codeFits = signal === undefined ? message.exitCode >= -1 && message.exitCode <= 255 : true;
    if (!codeFits || (signal !== undefined && !SIGNAL.test(signal))) {
      throw garbage(this.#botId, `an exit code ${message.exitCode} with signal ${message.signal}`);
    }
    return { code: signal === undefined ? message.exitCode : -1, signal, timedOut: message.timedOut };
  }
}
