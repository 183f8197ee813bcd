// Content of containerd: documents read back, blobs put in, labels that keep them.
import { Fault } from "../../lib/fault.ts";
import { SerialQueue } from "../../lib/serial-queue.ts";
import { throwIfAborted } from "../../lib/signal.ts";
import { digestOf } from "../../oci/digest.ts";
import { MAX_DOCUMENT } from "../../oci/document.ts";
import type { Descriptor } from "../../oci/manifest.ts";
import type { BlobSink } from "../../oci/registry.ts";
import type { ContainerdServices } from "../client.ts";
import { ContentWriter } from "./content-writer.ts";

export type Labels = Readonly<Record<string, string>>;

export interface PutOptions {
  readonly signal?: AbortSignal | undefined;
  /** Keep what was written of the blob when the failure is one that trying again may mend. */
  readonly resumable?: boolean;
}

const READ_MS = 60_000;

/** Blobs by digest, through services that may be under a lease. */
export class ContentStore {
  readonly #content: ContainerdServices["content"];
  readonly #queue: SerialQueue;

  /** @param queue shared by all stores of a process, so that no two write one blob */
  constructor(services: ContainerdServices, queue: SerialQueue) {
    this.#content = services.content;
    this.#queue = queue;
  }

  /** A document, its digest checked: containerd does not look at what it reads. */
  async read(descriptor: Descriptor, signal?: AbortSignal): Promise<Buffer> {
    const { digest } = descriptor;
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const { data } of this.#content.read({ digest }, { signal, timeoutMs: READ_MS })) {
        chunks.push(data);
        size += data.length;
        if (size > MAX_DOCUMENT) throw damaged(digest);
      }
    } catch (error) {
      if (!Fault.is(error, "not_found")) throw error;
      throw new Fault("not_found", `Cannot use ${digest}: containerd does not have it`, {
        cause: error,
        hint: "Pull or import the image again",
      });
    }
    const bytes = Buffer.concat(chunks, size);
    if (digestOf(bytes) !== digest) throw damaged(digest);
    return bytes;
  }

  /** Whether a blob is there. */
  async has(digest: string, signal?: AbortSignal): Promise<boolean> {
    try {
      await this.#content.info({ digest }, { signal });
      return true;
    } catch (error) {
      if (Fault.is(error, "not_found")) return false;
      throw error;
    }
  }

  /**
   * Makes a blob be there, under the lease and with the labels.
   * @param fill writes and commits it; not called when it is there
   */
  async put(
    descriptor: Descriptor,
    labels: Labels,
    fill: (sink: BlobSink) => Promise<void>,
    options: PutOptions = {},
  ): Promise<void> {
    const { signal } = options;
    await this.#queue.run(
      descriptor.digest,
      async () => {
        await using writer = await ContentWriter.open(this.#content, descriptor, { signal, labels });
        if (writer === undefined) {
          await this.#label(descriptor.digest, labels, signal);
          return;
        }
        try {
          await fill(writer);
        } catch (error) {
          const again = Fault.is(
            Fault.from(error),
            "unavailable",
            "cancelled",
            "deadline_exceeded",
            "aborted",
          );
          if (!again || options.resumable !== true) await writer.abort();
          throwIfAborted(signal);
          throw error;
        }
      },
      signal,
    );
  }

  /** Puts a small blob whose bytes are at hand. */
  async putBytes(
    descriptor: Descriptor,
    bytes: Uint8Array,
    labels: Labels,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.put(
      descriptor,
      labels,
      async (sink) => {
        await sink.write(bytes.subarray(sink.offset));
        await sink.commit();
      },
      { signal },
    );
  }

  async #label(digest: string, labels: Labels, signal: AbortSignal | undefined): Promise<void> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    if (paths.length === 0) return;
    await this.#content.update(
      { info: { digest, labels: { ...labels } }, updateMask: { paths } },
      { signal },
    );
  }
}

function damaged(digest: string): Fault {
  return new Fault("data_loss", `Cannot use ${digest}: containerd's copy of it is damaged`, {
    hint: "Remove the image, then pull or import it again",
  });
}
