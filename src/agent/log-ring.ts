// The agent's last log lines, kept in bounded memory and handed out through the Logs rpc.
import { abortable } from "../lib/signal.ts";

const MAX_BYTES = 256 << 10;
const MAX_LINES = 2_000;

/** Lines of a log, oldest dropped first. */
export class LogRing {
  readonly #maxBytes: number;
  readonly #maxLines: number;
  #lines: Buffer[] = [];
  #bytes = 0;
  /** Lines ever dropped: the number of the first one kept. */
  #dropped = 0;
  #added = Promise.withResolvers<void>();

  constructor(maxBytes = MAX_BYTES, maxLines = MAX_LINES) {
    this.#maxBytes = maxBytes;
    this.#maxLines = maxLines;
  }

  /** Adds a line; one that is longer than the ring is cut. */
  add(text: string): void {
    const whole = Buffer.from(text.endsWith("\n") ? text : `${text}\n`);
    const line =
      whole.length <= this.#maxBytes
        ? whole
        : Buffer.concat([whole.subarray(0, this.#maxBytes - 1), Buffer.from("\n")]);
    this.#lines.push(line);
    this.#bytes += line.length;
    let drop = 0;
    while (this.#bytes > this.#maxBytes || this.#lines.length - drop > this.#maxLines) {
      this.#bytes -= this.#lines[drop]?.length ?? 0;
      drop++;
    }
    if (drop > 0) this.#lines.splice(0, drop);
    this.#dropped += drop;
    this.#added.resolve();
    this.#added = Promise.withResolvers();
  }

  /**
   * The lines kept, oldest first, then those to come when following. A reader that falls behind the ring is told how
   * many lines it missed.
   */
  async *read(options: {
    readonly tailLines?: number;
    readonly follow?: boolean;
    readonly signal?: AbortSignal | undefined;
  }): AsyncGenerator<Uint8Array> {
    const { tailLines = 0, follow = false, signal } = options;
    const end = this.#dropped + this.#lines.length;
    let next = tailLines > 0 ? Math.max(this.#dropped, end - tailLines) : this.#dropped;
    for (;;) {
      if (next < this.#dropped) {
        yield Buffer.from(`... ${this.#dropped - next} lines missed\n`);
        next = this.#dropped;
      }
      const added = this.#added.promise;
      const lines = this.#lines.slice(next - this.#dropped);
      next += lines.length;
      if (lines.length > 0) yield Buffer.concat(lines);
      else if (follow) await abortable(added, signal);
      else return;
    }
  }
}
