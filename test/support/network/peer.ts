// A machine's TCP, for tests: a process in a network namespace that listens and dials on request.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** What a dial met. */
export interface Dialled {
  readonly open: boolean;
  /** The address the other side saw, or why there was none. */
  readonly said: string;
}

/** Milliseconds after which a silent target counts as closed. */
export const CLOSED = 700;
/** The same where an answer is expected, which takes one millisecond unless the machine is busy. */
export const OPEN = 10_000;

export class Peer implements AsyncDisposable {
  readonly #child;
  readonly #waiting = new Map<number, (answer: Record<string, unknown>) => void>();
  readonly #gone = Promise.withResolvers<never>();
  #last = 0;

  /** @param netns path of the namespace; absent is the test's own */
  constructor(netns?: string) {
    const main = [process.execPath, join(import.meta.dirname, "peer-main.ts")];
    const [program = "", ...args] = netns === undefined ? main : ["nsenter", `--net=${netns}`, ...main];
    this.#child = spawn(program, args, {
      stdio: ["pipe", "pipe", "inherit"],
      env: { PATH: process.env["PATH"] ?? "" },
    });
    this.#gone.promise.catch(() => undefined);
    this.#child.on("error", this.#gone.reject);
    this.#child.on("exit", (code, signal) => {
      this.#gone.reject(new Error(`peer ended with ${code ?? signal}`));
    });
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const answer = JSON.parse(line) as { id: number };
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async listen(port: number, host = "0.0.0.0"): Promise<void> {
    const { error } = await this.#order({ kind: "listen", host, port });
    if (typeof error === "string") throw new Error(error);
  }

  async dial(host: string, port: number, timeoutMs = OPEN): Promise<Dialled> {
    const answer = await this.#order({ kind: "connect", host, port, timeoutMs });
    return { open: answer["open"] === true, said: String(answer["said"]) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin.end();
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }

  async #order(order: Record<string, unknown>): Promise<Record<string, unknown>> {
    const id = ++this.#last;
    const { promise, resolve } = Promise.withResolvers<Record<string, unknown>>();
    this.#waiting.set(id, resolve);
    this.#child.stdin.write(`${JSON.stringify({ id, ...order })}\n`);
    return await Promise.race([promise, this.#gone.promise]);
  }
}
