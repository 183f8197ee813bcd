// Reading and writing pollable descriptors (pipes, terminal masters) with backpressure, under Node and Bun.
import { closeSync, fstatSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { ReadStream } from "node:tty";
import { errnoOf, faultFromErrno } from "./errno.ts";
import { Fault } from "./fault.ts";
import { sleep } from "./signal.ts";

/** Chunks of a descriptor, read only when asked for. */
export interface FdReader {
  /** The next bytes; undefined at the end. One call at a time. */
  next(): Promise<Uint8Array | undefined>;
  /** Stops and closes the descriptor; a pending `next` gives undefined. */
  close(): Promise<void>;
}

/** Takes over a non-blocking descriptor. The hang-up of a terminal is its end. */
export function readFd(fd: number): FdReader {
  return process.versions["bun"] === undefined ? readByStream(fd) : readByBun(fd);
}

/** A terminal whose other side is closed answers EIO. */
function endOrThrow(error: unknown): undefined {
  if (errnoOf(error) === "EIO") return undefined;
  throw faultFromErrno(error, "Cannot read the output of a process");
}

interface BunApi {
  file(fd: number): { stream(): ReadableStream<Uint8Array> };
}

/** Bun's net.Socket takes no descriptor and its file streams block a thread each; this one polls. */
function readByBun(fd: number): FdReader {
  const reader = (Reflect.get(globalThis, "Bun") as BunApi).file(fd).stream().getReader();
  let closed = false;
  return {
    next: async () => {
      try {
        return (await reader.read()).value;
      } catch (error) {
        return endOrThrow(error);
      }
    },
    close: async () => {
      if (closed) return;
      closed = true;
      try {
        await reader.cancel();
      } catch (error) {
        endOrThrow(error);
      } finally {
        closeSync(fd);
      }
    },
  };
}

function readByStream(fd: number): FdReader {
  const stream: NodeJS.ReadStream | Socket = fstatSync(fd).isCharacterDevice()
    ? new ReadStream(fd)
    : new Socket({ fd, readable: true, writable: false });
  let wake = Promise.withResolvers<void>();
  let over = false;
  let failure: unknown;
  const ring = () => {
    wake.resolve();
  };
  const finish = (error?: unknown) => {
    over = true;
    failure ??= error;
    ring();
  };
  stream.on("readable", ring);
  stream.on("end", () => {
    finish();
  });
  stream.on("close", () => {
    finish();
  });
  stream.on("error", finish);
  return {
    next: async () => {
      for (;;) {
        const chunk = stream.read() as Buffer | null;
        if (chunk !== null) return chunk;
        if (over) return failure === undefined ? undefined : endOrThrow(failure);
        wake = Promise.withResolvers<void>();
        await wake.promise;
      }
    },
    close: () => {
      finish();
      stream.destroy();
      return Promise.resolve();
    },
  };
}

/** Bytes a writer holds before its callers wait. */
const HIGH_WATER = 256 << 10;

/**
 * Writes a non-blocking descriptor. Neither runtime polls a pipe for writing the same way, so a full one is tried again:
 * at once, then after up to 16 ms.
 */
export class FdWriter {
  readonly #fd: number;
  readonly #close: () => void;
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  #pumping = false;
  #room = Promise.withResolvers<void>();
  #state: "open" | "ending" | "closed" = "open";
  #failure: unknown;

  /** @param close called once, when everything is written after `end`, or by `destroy` */
  constructor(fd: number, close: () => void) {
    this.#fd = fd;
    this.#close = close;
  }

  /** Whether it takes more. */
  get open(): boolean {
    return this.#state === "open";
  }

  /**
   * Resolves when the writer takes more.
   * @throws Fault failed_precondition when it was ended or nobody reads the other end any more
   */
  async write(data: Uint8Array): Promise<void> {
    if (this.#state !== "open") throw this.#closedFault();
    if (data.length === 0) return;
    this.#queue.push(data);
    this.#queued += data.length;
    if (!this.#pumping) void this.#pump();
    while (this.#queued > HIGH_WATER) {
      await this.#room.promise;
      // The pump is the other party here.
      if ((this.#state as string) === "closed") throw this.#closedFault();
    }
  }

  /** Closes after what was written; returns at once. Later calls do nothing. */
  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    if (!this.#pumping) void this.#pump();
  }

  /** Closes now; what is not written yet is dropped. */
  destroy(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#queue.length = 0;
    this.#queued = 0;
    this.#room.resolve();
    this.#close();
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    let pause = 0;
    for (;;) {
      const chunk = this.#queue[0];
      if (chunk === undefined) break;
      const written = this.#try(chunk);
      if (this.#state === "closed") return;
      if (written === 0) {
        pause = pause < 4 ? pause + 1 : Math.min(pause * 2, 64);
        if (pause < 4) await immediate();
        else await sleep(pause / 4);
        if ((this.#state as string) === "closed") return;
        continue;
      }
      pause = 0;
      this.#queued -= written;
      if (written === chunk.length) this.#queue.shift();
      else this.#queue[0] = chunk.subarray(written);
      if (this.#queued <= HIGH_WATER) {
        this.#room.resolve();
        this.#room = Promise.withResolvers<void>();
      }
    }
    this.#pumping = false;
    if (this.#state === "ending") this.destroy();
  }

  /** @returns bytes taken, 0 when full; closes the writer when nobody reads */
  #try(chunk: Uint8Array): number {
    try {
      return writeSync(this.#fd, chunk);
    } catch (error) {
      if (errnoOf(error) === "EAGAIN") return 0;
      this.#failure = error;
      this.destroy();
      return 0;
    }
  }

  #closedFault(): Fault {
    return new Fault("failed_precondition", "Cannot write to the process: its stdin is closed", {
      cause: this.#failure,
    });
  }
}

async function immediate(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  await promise;
}
