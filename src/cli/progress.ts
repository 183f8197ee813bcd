// Progress on stderr for anything that takes over a second: one line that renews itself on a terminal, plain lines else.
import type { Io } from "./io.ts";

/** Shows what is being done until it is disposed. */
export class Progress implements Disposable {
  readonly #io: Io;
  readonly #live: boolean;
  readonly #timer: NodeJS.Timeout;
  readonly #started = Date.now();
  #text: string;
  #shown = "";

  constructor(io: Io, text: string) {
    this.#io = io;
    this.#text = text;
    this.#live = io.stderr.isTTY;
    this.#timer = setInterval(
      () => {
        this.#show();
      },
      this.#live ? 200 : 1000,
    );
    this.#timer.unref();
  }

  /** What is being done now. */
  update(text: string): void {
    this.#text = text;
  }

  #show(): void {
    const seconds = Math.floor((Date.now() - this.#started) / 1000);
    if (seconds < 1) return;
    if (this.#live) this.#io.stderr.write(`\r\x1b[K${this.#text} … ${seconds}s`);
    // Off a terminal a line appears once per text, not once per second.
    else if (this.#shown !== this.#text) this.#io.stderr.write(`${this.#text} …\n`);
    this.#shown = this.#text;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#live && this.#shown !== "") this.#io.stderr.write("\r\x1b[K");
  }
}

/** Runs work under a progress line. */
export async function withProgress<T>(
  io: Io,
  text: string,
  work: (progress: Progress) => Promise<T>,
): Promise<T> {
  using progress = new Progress(io, text);
  return await work(progress);
}
