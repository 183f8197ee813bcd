// The outputs of one process as a single sequence that is read only as fast as it is taken.
import type { ChildOutput } from "./launch.ts";

export interface OutputChunk {
  readonly kind: "stdout" | "stderr";
  readonly data: Uint8Array;
}

interface Source extends ChildOutput {
  state: "idle" | "reading" | "ready" | "done";
  data: Uint8Array | undefined;
}

/** Once the drain time is over, a pipe that stays quiet for so long is taken as empty. */
const QUIET_MS = 50;
/** Most that a process can have left in a pipe: what comes after that was written by somebody else. */
const PIPE_BYTES = 1 << 20;

/**
 * Merges outputs. After the process ended they are read to their end, but a pipe that somebody else holds open is
 * waited for only so long; nothing the process itself wrote is lost, however slowly it is taken.
 */
export class OutputMerge {
  readonly #sources: Source[];
  readonly #drainMs: number;
  #wake = Promise.withResolvers<void>();
  #deadline: number | undefined;
  #late = 0;
  #failure: Error | undefined;

  constructor(outputs: readonly ChildOutput[], drainMs: number) {
    this.#sources = outputs.map((output) => ({ ...output, state: "idle", data: undefined }));
    this.#drainMs = drainMs;
  }

  /** Starts the drain time. */
  processEnded(): void {
    this.#deadline = performance.now() + this.#drainMs;
    this.#wake.resolve();
  }

  /** Makes `next` throw from now on. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#wake.resolve();
  }

  /** The next chunk, or undefined when there is no more. One call at a time. */
  async next(): Promise<OutputChunk | undefined> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      for (const source of this.#sources) {
        if (source.state === "idle") void this.#read(source);
      }
      const ready = this.#sources.find((source) => source.state === "ready");
      if (ready !== undefined) return this.#take(ready);
      if (this.#sources.every((source) => source.state === "done")) return undefined;
      if (this.#late > PIPE_BYTES || !(await this.#changed())) return undefined;
    }
  }

  #take(source: Source): OutputChunk {
    const data = source.data ?? new Uint8Array();
    source.state = "idle";
    source.data = undefined;
    // The other one is asked first next time.
    this.#sources.push(...this.#sources.splice(this.#sources.indexOf(source), 1));
    if (this.#deadline !== undefined && performance.now() > this.#deadline) this.#late += data.length;
    return { kind: source.kind, data };
  }

  async #read(source: Source): Promise<void> {
    source.state = "reading";
    try {
      source.data = await source.reader.next();
      source.state = source.data === undefined ? "done" : "ready";
    } catch (error) {
      source.state = "done";
      this.#failure ??= error instanceof Error ? error : new Error(String(error));
    }
    this.#wake.resolve();
  }

  /** Waits for a change. @returns false when the wait was in vain */
  async #changed(): Promise<boolean> {
    this.#wake = Promise.withResolvers();
    if (this.#deadline === undefined) {
      await this.#wake.promise;
      return true;
    }
    let quiet = false;
    const timer = setTimeout(
      () => {
        quiet = true;
        this.#wake.resolve();
      },
      Math.max(this.#deadline - performance.now(), QUIET_MS),
    );
    await this.#wake.promise;
    clearTimeout(timer);
    return !quiet || this.#sources.some((source) => source.state === "ready");
  }
}
