// The images of one containerd as core's ImageStore: list, read, import, pull, unpack, remove.

import { timestampDate } from "@bufbuild/protobuf/wkt";
import { normalizeImageRef, withDefaultTag } from "../../core/image-ref.ts";
import type { ImageConfig, ImageInfo, ImageStore, ProgressListener } from "../../core/runtime.ts";
import type { Wait } from "../../core/workspace.ts";
import type { Image } from "../../gen/proto/containerd/images_pb.ts";
import { Fault } from "../../lib/fault.ts";
import { SerialQueue } from "../../lib/serial-queue.ts";
import { ImageArchive } from "../../oci/image-archive.ts";
import { formatPlatform, hostPlatform, type Platform } from "../../oci/platform.ts";
import type { RegistryOptions } from "../../oci/registry.ts";
import { contentSize, type ResolvedImage, resolveImage } from "../../oci/resolve-image.ts";
import type { ContainerdClient, ContainerdServices } from "../client.ts";
import { Lease } from "../lease.ts";
import { ContentStore } from "./content-store.ts";
import { importImages } from "./import-image.ts";
import { pullImage } from "./pull-image.ts";
import type { ImageContext } from "./store-image.ts";
import { isUnpacked, unpackLayers } from "./unpack.ts";

export interface ContainerdImagesOptions {
  /** Registries that need more than their name: mirrors, credentials, plain http. */
  readonly registry: RegistryOptions;
  readonly snapshotter?: string;
  /** Platform images are chosen for; this machine's when absent. */
  readonly platform?: Platform;
}

const MAX_CACHED = 64;
/** Of a run of containerd's collector, which removes files one by one. */
const COLLECT_MS = 120_000;
const MAX_CACHED_BYTES = 256 << 10;

/** Images of a containerd namespace. References are normalized here; a missing tag means `latest`. */
export class ContainerdImages implements ImageStore {
  readonly #client: ContainerdClient;
  readonly #options: ContainerdImagesOptions;
  readonly #host: Platform;
  readonly #context: ImageContext;
  readonly #content: ContentStore;
  /** One pull of a name at a time: who comes second finds it there. */
  readonly #pulls = new SerialQueue();
  /** Documents by digest of their root. They never change. */
  readonly #cache = new Map<string, ResolvedImage>();

  constructor(client: ContainerdClient, options: ContainerdImagesOptions) {
    this.#client = client;
    this.#options = options;
    this.#host = options.platform ?? hostPlatform();
    this.#context = { snapshotter: options.snapshotter ?? "overlayfs", queue: new SerialQueue() };
    this.#content = new ContentStore(client, this.#context.queue);
  }

  async list(wait: Wait = {}): Promise<ImageInfo[]> {
    const { images } = await this.#client.images.list({}, wait);
    const infos: ImageInfo[] = [];
    for (const image of images) infos.push(await this.#info(image, wait));
    return infos.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async get(ref: string, wait: Wait = {}): Promise<ImageInfo | undefined> {
    const image = await this.#find(ref, wait);
    return image === undefined ? undefined : await this.#info(image, wait);
  }

  async config(ref: string, wait: Wait = {}): Promise<ImageConfig> {
    const { env, workingDir, user, diffIds } = (await this.#resolve(await this.#must(ref, wait), wait))
      .config;
    return { env, workingDir, user, diffIds };
  }

  async import(
    archive: string,
    options: Wait & { readonly name?: string; readonly onProgress?: ProgressListener } = {},
  ): Promise<ImageInfo[]> {
    const { signal, onProgress } = options;
    await using open = await ImageArchive.open(archive, signal);
    const names = await this.#underLease("import", false, signal, async (services) => {
      return await importImages(this.#context, services, open, { ...options, host: this.#host });
    });
    const infos: ImageInfo[] = [];
    for (const name of names) infos.push(await this.#info(await this.#must(name, { signal }), { signal }));
    onProgress?.({ phase: "done" });
    return infos;
  }

  async pull(
    ref: string,
    options: Wait & { readonly always?: boolean; readonly onProgress?: ProgressListener } = {},
  ): Promise<ImageInfo> {
    const { signal, onProgress } = options;
    const name = withDefaultTag(ref);
    return await this.#pulls.run(
      name,
      async () => {
        if (options.always === true || !(await this.#isWhole(name, options))) {
          await this.#underLease("pull", true, signal, async (services) => {
            await pullImage(this.#context, services, name, {
              registry: this.#options.registry,
              host: this.#host,
              signal,
              onProgress,
            });
          });
        }
        const info = await this.#info(await this.#must(name, options), options);
        onProgress?.({ phase: "done", item: name });
        return info;
      },
      signal,
    );
  }

  async remove(ref: string, wait: Wait = {}): Promise<boolean> {
    const image = await this.#find(ref, wait);
    if (image === undefined) return false;
    try {
      await this.#client.images.delete({ name: image.name, sync: true }, { ...wait, timeoutMs: COLLECT_MS });
      return true;
    } catch (error) {
      if (Fault.is(error, "not_found")) return false;
      throw error;
    }
  }

  async unpack(ref: string, wait: Wait = {}): Promise<void> {
    const image = await this.#resolve(await this.#must(ref, wait), wait);
    await this.#unpack(ref, image, wait);
  }

  /** The image and its snapshots are there; the snapshots are made again when only they are missing. */
  async #isWhole(name: string, wait: Wait): Promise<boolean> {
    const record = await this.#find(name, wait);
    if (record === undefined) return false;
    try {
      const image = await this.#resolve(record, wait);
      for (const { digest } of [image.configDocument.descriptor, ...image.manifest.layers]) {
        if (!(await this.#content.has(digest, wait.signal))) return false;
      }
      await this.#unpack(name, image, wait);
      return true;
    } catch (error) {
      // Parts of it are missing or damaged: it is fetched again.
      if (Fault.is(error, "not_found", "data_loss")) return false;
      throw error;
    }
  }

  async #unpack(ref: string, image: ResolvedImage, { signal }: Wait): Promise<void> {
    const { diffIds } = image.config;
    if (await isUnpacked(this.#client, this.#context.snapshotter, diffIds, signal)) return;
    await this.#underLease("unpack", false, signal, async (services) => {
      try {
        await unpackLayers(services, image.manifest.layers, diffIds, { ...this.#context, signal });
      } catch (error) {
        if (!Fault.is(error, "not_found")) throw error;
        throw new Fault("not_found", `Cannot unpack ${ref}: layers of it are gone`, {
          cause: error,
          hint: "Pull or import the image again",
        });
      }
    });
  }

  /**
   * Runs work under a lease. After a failure what it made is collected before the error leaves, unless it can be gone
   * on with: then the lease ends by its own expiry.
   */
  async #underLease<T>(
    purpose: string,
    resumable: boolean,
    signal: AbortSignal | undefined,
    work: (services: ContainerdServices) => Promise<T>,
  ): Promise<T> {
    const lease = await Lease.create(this.#client, `image-${purpose}`, { signal });
    let result: T;
    try {
      result = await work(lease.services);
    } catch (error) {
      if (!resumable || !Fault.is(error, "unavailable", "cancelled", "deadline_exceeded")) {
        await this.#collect(lease);
      }
      throw error;
    }
    await lease[Symbol.asyncDispose]();
    return result;
  }

  async #collect(lease: Lease): Promise<void> {
    try {
      await this.#client.leases.delete({ id: lease.id, sync: true }, { timeoutMs: COLLECT_MS });
    } catch (error) {
      // A daemon that cannot be reached collects it when the lease expires; the failure that led here matters more.
      if (!Fault.is(error, "not_found", "unavailable", "deadline_exceeded")) throw error;
    }
  }

  async #find(ref: string, { signal }: Wait): Promise<Image | undefined> {
    // Exactly this name: another registry's image of the same short name is another image.
    for (const name of new Set([withDefaultTag(ref), normalizeImageRef(ref)])) {
      try {
        return (await this.#client.images.get({ name }, { signal })).image;
      } catch (error) {
        if (!Fault.is(error, "not_found")) throw error;
      }
    }
    return undefined;
  }

  async #must(ref: string, wait: Wait): Promise<Image> {
    const image = await this.#find(ref, wait);
    if (image !== undefined) return image;
    const name = withDefaultTag(ref);
    throw new Fault("not_found", `Cannot find the image ${name}`, {
      hint: `Run memoh image pull ${name}, or import or build it`,
    });
  }

  async #info(image: Image, wait: Wait): Promise<ImageInfo> {
    const { resolved, platform } = await this.#resolve(image, wait).then(
      (found) => ({ resolved: found, platform: formatPlatform(found.config.platform) }),
      (error: unknown) => {
        // What is no image for this machine, or is not whole, is listed all the same.
        if (!Fault.is(error, "not_found", "failed_precondition", "unimplemented", "data_loss")) throw error;
        return { resolved: undefined, platform: "" };
      },
    );
    return {
      name: image.name,
      digest: image.target?.digest ?? "",
      size: resolved === undefined ? 0 : contentSize(resolved),
      platform,
      createdAt: image.createdAt === undefined ? new Date(0) : timestampDate(image.createdAt),
    };
  }

  async #resolve(image: Image, { signal }: Wait): Promise<ResolvedImage> {
    const { mediaType = "", digest = "", size = 0n } = image.target ?? {};
    const cached = this.#cache.get(digest);
    if (cached !== undefined) return cached;
    const resolved = await resolveImage(
      { mediaType, digest, size: Number(size) },
      async (descriptor) => await this.#content.read(descriptor, signal),
      this.#host,
      image.name,
    );
    if (
      [...resolved.documents, resolved.configDocument].every(({ bytes }) => bytes.length <= MAX_CACHED_BYTES)
    ) {
      const [oldest] = this.#cache.keys();
      if (oldest !== undefined && this.#cache.size >= MAX_CACHED) this.#cache.delete(oldest);
      this.#cache.set(digest, resolved);
    }
    return resolved;
  }
}
