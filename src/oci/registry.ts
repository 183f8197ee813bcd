// A repository in a registry: its manifests and blobs, whatever mirror, retry or resumed connection it takes.
import { Fault } from "../lib/fault.ts";
import { sleep, throwIfAborted } from "../lib/signal.ts";
import { digestOf, isDigest } from "./digest.ts";
import { MAX_DOCUMENT } from "./document.ts";
import { type Descriptor, type Index, type Manifest, parseManifest } from "./manifest.ts";
import { ACCEPT_MANIFESTS } from "./media-types.ts";
import { endpointsOf, type RegistryHost } from "./registry-endpoints.ts";
import { type HttpTimes, RegistryHttp, readBounded } from "./registry-http.ts";

/** Where the bytes of a blob go. It may hold some from an earlier attempt. */
export interface BlobSink {
  /** Bytes it has. */
  readonly offset: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Takes the whole blob in. @throws Fault data_loss when the bytes do not have the digest */
  commit(): Promise<void>;
  /** Forgets every byte. */
  reset(): Promise<void>;
}

export interface RegistryOptions {
  readonly hosts: readonly RegistryHost[];
  /** First pause before something is tried again, milliseconds; each further one is twice as long. */
  readonly retryMs?: number;
  readonly times?: HttpTimes;
}

/** A manifest or index as the registry has it. */
export interface RemoteManifest {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
  readonly document: Manifest | Index;
}

const DEFAULT_TIMES: HttpTimes = { answerMs: 30_000, stallMs: 30_000 };
const DEFAULT_RETRY_MS = 300;
const MAX_RETRY_MS = 10_000;
/** Attempts without progress. A mirror is given up sooner, because there is somewhere else to go. */
const ATTEMPTS = 5;
const MIRROR_ATTEMPTS = 2;

/** An error of the sink: asking another server does not help. */
class SinkError extends Error {}

/** One repository, as one pull sees it: a mirror that failed is not asked again. */
export class Repository {
  readonly #name: string;
  readonly #repository: string;
  readonly #servers: RegistryHttp[];
  readonly #retryMs: number;

  /**
   * @param registry `docker.io`, `reg:5000`
   * @param repository `library/debian`
   */
  constructor(registry: string, repository: string, options: RegistryOptions) {
    this.#name = `${registry}/${repository}`;
    this.#repository = repository;
    this.#retryMs = options.retryMs ?? DEFAULT_RETRY_MS;
    this.#servers = endpointsOf(registry, options.hosts).map(
      (endpoint) => new RegistryHttp(endpoint, options.times ?? DEFAULT_TIMES),
    );
  }

  /**
   * A manifest or index by tag or digest. With a digest the bytes have it.
   * @throws Fault not_found, unavailable, unauthenticated, permission_denied, data_loss, failed_precondition
   */
  async manifest(reference: string, signal?: AbortSignal): Promise<RemoteManifest> {
    const what = isDigest(reference) ? `${this.#name}@${reference}` : `${this.#name}:${reference}`;
    return await this.#each(signal, async (server) => {
      await using answer = await server.get(
        `${this.#repository}/manifests/${reference}`,
        { accept: ACCEPT_MANIFESTS },
        this.#request(`pull ${what}`, signal),
      );
      const bytes = await readBounded(answer.body, MAX_DOCUMENT, `the manifest of ${what}`);
      const digest = digestOf(bytes);
      const promised = isDigest(reference) ? reference : answer.headers.get("docker-content-digest");
      if (promised !== null && isDigest(promised) && promised !== digest) {
        throw mismatch(`the manifest of ${what}`, server);
      }
      const document = parseManifest(bytes, `the manifest of ${what}`);
      return { bytes, document, descriptor: { mediaType: document.mediaType, digest, size: bytes.length } };
    });
  }

  /** A small blob, whole, with its digest checked. */
  async document(descriptor: Descriptor, signal?: AbortSignal): Promise<Buffer> {
    const what = `${descriptor.digest} of ${this.#name}`;
    return await this.#each(signal, async (server) => {
      await using answer = await server.get(
        this.#blobPath(descriptor),
        {},
        this.#request(`pull ${what}`, signal),
      );
      const bytes = await readBounded(answer.body, Math.min(descriptor.size, MAX_DOCUMENT), what);
      if (digestOf(bytes) !== descriptor.digest) throw mismatch(what, server);
      return bytes;
    });
  }

  /**
   * Downloads a blob into a sink and commits it, going on where the sink or a broken connection stands.
   * @throws Fault as `manifest`, and whatever the sink throws
   */
  async download(descriptor: Descriptor, sink: BlobSink, signal?: AbortSignal): Promise<void> {
    /** Who sent the first bytes in the sink; undefined when it was an earlier pull. */
    let sender: RegistryHttp | undefined;
    try {
      await this.#each(
        signal,
        async (server) => {
          for (;;) {
            if (sink.offset === 0) sender = server;
            if (sink.offset < descriptor.size) await this.#receive(server, descriptor, sink, signal);
            try {
              await sink.commit();
              return;
            } catch (error) {
              if (!Fault.is(error, "data_loss")) throw new SinkError("commit", { cause: error });
              await guarded(async () => {
                await sink.reset();
              });
              // When the wrong bytes may have been somebody else's, this server has its own chance.
              if (sender === server) throw error;
            }
          }
        },
        () => sink.offset,
      );
    } catch (error) {
      throw error instanceof SinkError ? error.cause : error;
    }
  }

  async #receive(
    server: RegistryHttp,
    descriptor: Descriptor,
    sink: BlobSink,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const start = sink.offset;
    const doing = `pull ${descriptor.digest} of ${this.#name}`;
    await using answer = await server.get(
      this.#blobPath(descriptor),
      start === 0 ? {} : { range: `bytes=${start}-` },
      this.#request(doing, signal),
    );
    if (answer.status === 206 && !answer.headers.get("content-range")?.startsWith(`bytes ${start}-`)) {
      throw new Fault(
        "failed_precondition",
        `Cannot ${doing}: ${server.endpoint.name} answers with another range`,
        { hint: "Check that it is an image registry" },
      );
    }
    // A server that knows no ranges begins at the beginning.
    let skip = answer.status === 206 ? 0 : start;
    for await (const chunk of answer.body) {
      const piece = chunk.subarray(Math.min(skip, chunk.length));
      skip -= chunk.length - piece.length;
      if (sink.offset + piece.length > descriptor.size)
        throw mismatch(`${descriptor.digest} of ${this.#name}`, server);
      if (piece.length > 0) {
        await guarded(async () => {
          await sink.write(piece);
        });
      }
    }
    if (sink.offset < descriptor.size) {
      throw new Fault(
        "unavailable",
        `Cannot ${doing}: ${server.endpoint.name} broke off after ${sink.offset} bytes`,
        {
          hint: "Try again: it goes on from there",
        },
      );
    }
  }

  /** Asks one server after the other, each of them several times while it is merely unavailable. */
  async #each<T>(
    signal: AbortSignal | undefined,
    ask: (server: RegistryHttp) => Promise<T>,
    progress: () => number = () => 0,
  ): Promise<T> {
    const failures: Fault[] = [];
    for (const server of this.#servers.slice()) {
      try {
        return await this.#retried(server, signal, ask, progress);
      } catch (error) {
        throwIfAborted(signal);
        if (error instanceof SinkError) throw error;
        failures.push(Fault.from(error));
        const at = this.#servers.indexOf(server);
        if (server.endpoint.mirror && at !== -1) this.#servers.splice(at, 1);
      }
    }
    // The registry itself is asked last, and what it says counts.
    const last =
      failures.at(-1) ?? new Fault("internal", `Cannot pull ${this.#name}: there is nobody to ask`);
    if (failures.length === 1) throw last;
    const cause = new AggregateError(failures, "every server failed");
    throw new Fault(last.code, last.message, { hint: last.hint, cause });
  }

  async #retried<T>(
    server: RegistryHttp,
    signal: AbortSignal | undefined,
    ask: (server: RegistryHttp) => Promise<T>,
    progress: () => number,
  ): Promise<T> {
    const attempts = server.endpoint.mirror ? MIRROR_ATTEMPTS : ATTEMPTS;
    let before = progress();
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask(server);
      } catch (error) {
        throwIfAborted(signal);
        if (progress() > before) attempt = 1;
        before = progress();
        if (!Fault.is(error, "unavailable") || attempt >= attempts) throw error;
      }
      const backoff = Math.min(this.#retryMs * 2 ** (attempt - 1), MAX_RETRY_MS);
      await sleep(Math.max(backoff * (0.5 + Math.random() / 2), server.pauseMs), signal);
    }
  }

  #blobPath(descriptor: Descriptor): string {
    return `${this.#repository}/blobs/${descriptor.digest}`;
  }

  #request(doing: string, signal: AbortSignal | undefined) {
    return { scope: `repository:${this.#repository}:pull`, doing, signal };
  }
}

async function guarded(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new SinkError("sink", { cause: error });
  }
}

function mismatch(what: string, server: RegistryHttp): Fault {
  return new Fault(
    "data_loss",
    `Cannot use ${what}: what ${server.endpoint.name} sends does not have that digest`,
    {
      hint: "Try again, or have the image pushed again",
    },
  );
}
