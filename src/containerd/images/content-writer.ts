// One blob on its way into containerd's content store: resumable, watched for stalls, committed under its digest.
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  WriteAction,
  type WriteContentRequestSchema,
  type WriteContentResponse,
} from "../../gen/proto/containerd/content_pb.ts";
import { Fault } from "../../lib/fault.ts";
import { deadline, sleep, throwIfAborted } from "../../lib/signal.ts";
import type { Descriptor } from "../../oci/manifest.ts";
import type { BlobSink } from "../../oci/registry.ts";
import type { BidiStream } from "../../rpc/client.ts";
import type { ContainerdServices } from "../client.ts";

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

export interface ContentWriterOptions {
  readonly signal?: AbortSignal | undefined;
  /** Set on the blob when it is committed. */
  readonly labels: Readonly<Record<string, string>>;
  /** Milliseconds without an answer after which the stream counts as stalled and is opened anew. */
  readonly stallMs?: number | undefined;
  /** Milliseconds the commit may take. */
  readonly commitMs?: number | undefined;
}

/**
 * Under Bun a sender stalls for ever when the peer raises its window in the middle of a stream, which containerd does
 * once more than 64 KiB are under way (oven-sh/bun pull request 41329). Each message is answered before the next.
 */
const MESSAGE_SIZE = process.versions["bun"] === undefined ? 1 << 20 : 48 << 10;
const STALL_MS = 15_000;
const MAX_STALLS = 5;
const ABORT_ATTEMPTS = 8;
/** Of a big blob on a slow disk: containerd syncs it before it answers. */
const COMMIT_MS = 5 * 60_000;
/** How long another writer of the same blob may make no progress before it counts as dead. */
const LOCKED_MS = 60_000;

/** Writes one blob. Disposing without a commit leaves what was written, to be gone on with later. */
export class ContentWriter implements BlobSink, AsyncDisposable {
  readonly #content: ContainerdServices["content"];
  readonly #descriptor: Descriptor;
  readonly #options: ContentWriterOptions;
  readonly #ref: string;
  #stream: BidiStream<Request, WriteContentResponse> | undefined;
  #replies: AsyncIterator<WriteContentResponse> | undefined;
  /** Bytes containerd has. */
  #written = 0;
  #pending: Uint8Array[] = [];
  #pendingSize = 0;

  private constructor(
    content: ContainerdServices["content"],
    descriptor: Descriptor,
    options: ContentWriterOptions,
  ) {
    this.#content = content;
    this.#descriptor = descriptor;
    this.#options = options;
    this.#ref = `memoh-${descriptor.digest}`;
  }

  /**
   * Opens the writer of a blob, where an earlier one left it.
   * @returns undefined when the blob is there; it is under the caller's lease then
   */
  static async open(
    content: ContainerdServices["content"],
    descriptor: Descriptor,
    options: ContentWriterOptions,
  ): Promise<ContentWriter | undefined> {
    const writer = new ContentWriter(content, descriptor, options);
    if (!(await writer.#connect())) return undefined;
    if (writer.offset > descriptor.size) await writer.reset();
    return writer;
  }

  get offset(): number {
    return this.#written + this.#pendingSize;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#pending.push(chunk);
    this.#pendingSize += chunk.length;
    if (this.#pendingSize >= MESSAGE_SIZE) await this.#flush(MESSAGE_SIZE);
  }

  async commit(): Promise<void> {
    await this.#flush(1);
    const request = { action: WriteAction.COMMIT, labels: this.#options.labels };
    const commitMs = this.#options.commitMs ?? COMMIT_MS;
    try {
      try {
        await this.#exchange(request, commitMs);
      } catch (error) {
        throwIfAborted(this.#options.signal);
        if (!Fault.is(error, "unavailable", "deadline_exceeded")) throw error;
        // Whether it was taken in shows when it is asked for again.
        if (await this.#connect()) await this.#exchange(request, commitMs);
      }
    } catch (error) {
      // Another writer was first.
      if (Fault.is(error, "already_exists")) return;
      if (isMismatch(error)) {
        throw new Fault(
          "data_loss",
          `Cannot store ${this.#descriptor.digest}: the bytes do not have that digest`,
          {
            cause: error,
            hint: "The blob is damaged at its source: fetch or save the image again",
          },
        );
      }
      throw error;
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }

  async reset(): Promise<void> {
    await this.abort();
    if (!(await this.#connect())) this.#written = this.#descriptor.size;
    else if (this.#written > 0) {
      throw new Fault(
        "aborted",
        `Cannot store ${this.#descriptor.digest}: an earlier upload cannot be removed`,
        {
          hint: "Try again",
        },
      );
    }
  }

  /**
   * Throws away what was written. Runs under a deadline of its own. What cannot be thrown away now is collected with
   * the lease, so this never fails.
   */
  async abort(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#forgetPending();
    for (let attempt = 1; attempt <= ABORT_ATTEMPTS; attempt++) {
      try {
        await this.#content.abort({ ref: this.#ref });
        return;
      } catch (error) {
        if (!Fault.is(error, "internal")) return;
      }
      // containerd is still closing the stream: "directory not empty".
      await sleep(10 * attempt);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#replies = undefined;
    await stream?.[Symbol.asyncDispose]();
  }

  /** Sends what is pending while there is at least so much of it. */
  async #flush(atLeast: number): Promise<void> {
    if (this.#pendingSize < atLeast) return;
    const [first, ...more] = this.#pending;
    // The usual case, one big chunk, is not copied.
    const bytes = first !== undefined && more.length === 0 ? first : Buffer.concat(this.#pending);
    this.#forgetPending();
    const start = this.#written;
    let stalls = 0;
    for (;;) {
      const rest = bytes.subarray(this.#written - start);
      if (rest.length === 0) return;
      if (rest.length < atLeast) {
        this.#pending = [rest];
        this.#pendingSize = rest.length;
        return;
      }
      const before = this.#written;
      try {
        const data = rest.subarray(0, MESSAGE_SIZE);
        const { offset } = await this.#exchange({ action: WriteAction.WRITE, data }, this.#stallMs);
        this.#written = Number(offset);
      } catch (error) {
        throwIfAborted(this.#options.signal);
        if (!Fault.is(error, "deadline_exceeded", "unavailable") || ++stalls > MAX_STALLS) throw error;
        await sleep(50 * 2 ** stalls, this.#options.signal);
        if (!(await this.#connect())) this.#written = start + bytes.length;
      }
      if (this.#written > before) stalls = 0;
      if (this.#written < start || this.#written > start + bytes.length) {
        throw new Fault(
          "aborted",
          `Cannot store ${this.#descriptor.digest}: something else wrote it at the same time`,
          {
            hint: "Try again",
          },
        );
      }
    }
  }

  #forgetPending(): void {
    this.#pending = [];
    this.#pendingSize = 0;
  }

  /** @returns false when the blob is there */
  async #connect(): Promise<boolean> {
    const { signal } = this.#options;
    let seen = -1;
    let until = Date.now() + LOCKED_MS;
    for (let pause = 10; ; pause = Math.min(pause * 2, 500)) {
      await this[Symbol.asyncDispose]();
      this.#stream = this.#content.write({ signal, waitForReady: true });
      this.#replies = this.#stream.responses[Symbol.asyncIterator]();
      try {
        const { offset } = await this.#exchange({ action: WriteAction.STAT }, this.#stallMs);
        this.#written = Number(offset);
        return true;
      } catch (error) {
        await this[Symbol.asyncDispose]();
        throwIfAborted(signal);
        if (Fault.is(error, "already_exists")) return false;
        // Our own broken stream, or another writer, still holds the ref.
        if (!Fault.is(error, "aborted") || Date.now() > until) throw error;
        const progress = await this.#progress();
        if (progress !== seen) until = Date.now() + LOCKED_MS;
        seen = progress;
      }
      await sleep(pause, signal);
    }
  }

  async #progress(): Promise<number> {
    try {
      const { status } = await this.#content.status({ ref: this.#ref }, { signal: this.#options.signal });
      return Number(status?.offset ?? 0);
    } catch (error) {
      if (Fault.is(error, "not_found")) return -1;
      throw error;
    }
  }

  /** One message and the answer to it. */
  async #exchange(message: Request, ms: number): Promise<WriteContentResponse> {
    const { digest, size } = this.#descriptor;
    return await deadline(this.#options.signal, ms, `containerd Content.Write of ${digest}`, async () => {
      const stream = this.#stream;
      const replies = this.#replies;
      if (stream === undefined || replies === undefined)
        throw new Fault("internal", `The writer of ${digest} is closed`);
      const request = {
        ...message,
        ref: this.#ref,
        total: BigInt(size),
        expected: digest,
        offset: BigInt(this.#written),
      };
      try {
        await stream.write(request);
      } catch (error) {
        // The stream is over; why, comes with its status.
        await replies.next();
        throw error;
      }
      const reply = await replies.next();
      if (reply.done === true) {
        throw new Fault("unavailable", `containerd Content.Write of ${digest}: the stream ended`);
      }
      return reply.value;
    });
  }

  get #stallMs(): number {
    return this.#options.stallMs ?? STALL_MS;
  }
}

/** containerd's words for bytes that are not what they were said to be. */
function isMismatch(error: unknown): boolean {
  return (
    Fault.is(error, "failed_precondition") &&
    /unexpected commit (digest|size)|failed size validation/.test(error.message)
  );
}
