// Images in a tar file, as skopeo and buildah (OCI layout) or docker save write them. Read in place, never extracted.
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import * as z from "zod";
import { faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { throwIfAborted } from "../lib/signal.ts";
import { digestOf } from "./digest.ts";
import { MAX_DOCUMENT, orEmpty, parseDocument } from "./document.ts";
import { type Descriptor, type Manifest, parseManifest } from "./manifest.ts";
import { layerTypeOf, OCI_CONFIG, OCI_MANIFEST } from "./media-types.ts";
import { indexTar, readAt, type TarMember } from "./tar-index.ts";

/** One image of an archive: the descriptor of its manifest or index, and what the archive calls it. */
export interface ArchivedImage {
  readonly root: Descriptor;
  /** As written, not normalized; empty when the archive does not say. */
  readonly names: readonly string[];
}

const READ_SIZE = 1 << 20;
const MAX_LINKS = 8;

const savedImages = z.array(
  z.object({
    Config: z.string(),
    RepoTags: orEmpty(z.array(z.string())),
    Layers: orEmpty(z.array(z.string())),
  }),
);

/** An open archive. Blobs are addressed by digest, whatever the archive calls their files. */
export class ImageArchive implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #what: string;
  readonly #members: ReadonlyMap<string, TarMember>;
  /** Blobs that are not under `blobs/sha256`: members of docker archives, and manifests made for them. */
  readonly #blobs = new Map<string, TarMember | Buffer>();

  private constructor(file: FileHandle, what: string, members: ReadonlyMap<string, TarMember>) {
    this.#file = file;
    this.#what = what;
    this.#members = members;
  }

  /** @throws Fault not_found, invalid_argument when it is no archive, data_loss when it is damaged */
  static async open(path: string, signal?: AbortSignal): Promise<ImageArchive> {
    const what = `the archive ${path}`;
    let file: FileHandle;
    try {
      // A FIFO must not hold us until somebody writes.
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw faultFromErrno(error, `Cannot open ${what}`, "Give the path of an image archive on the host");
    }
    try {
      if (!(await file.stat()).isFile()) {
        throw new Fault("invalid_argument", `Cannot read ${what}: it is not a regular file`, {
          hint: "Give an archive made by docker save, skopeo, buildah or memoh image build",
        });
      }
      return new ImageArchive(file, what, await indexTar(file, what, signal));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The images in it. Layers of a docker archive are hashed here, because it does not name their digests. */
  async images(signal?: AbortSignal): Promise<ArchivedImage[]> {
    if (this.#members.has("index.json")) return await this.#layoutImages();
    if (this.#members.has("manifest.json")) return await this.#savedImages(signal);
    throw new Fault(
      "invalid_argument",
      `Cannot read ${this.#what}: it has neither index.json nor manifest.json`,
      {
        hint: "Give an archive made by docker save, skopeo, buildah or memoh image build",
      },
    );
  }

  /** Size of a blob; undefined when the archive does not have it. */
  size(digest: string): number | undefined {
    const blob = this.#blob(digest);
    return Buffer.isBuffer(blob) ? blob.length : blob?.size;
  }

  /** A small blob, its digest checked. @throws Fault data_loss when it is missing or damaged */
  async document(descriptor: Descriptor): Promise<Buffer> {
    const blob = this.#blob(descriptor.digest);
    if (blob === undefined) throw this.#missing(descriptor);
    const bytes = Buffer.isBuffer(blob) ? blob : await this.#readDocument(blob, descriptor.digest);
    if (digestOf(bytes) !== descriptor.digest) throw this.#corrupt(descriptor);
    return bytes;
  }

  /** The bytes of a blob from an offset on, unchecked. */
  async *stream(descriptor: Descriptor, offset: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const blob = this.#blob(descriptor.digest);
    if (blob === undefined) throw this.#missing(descriptor);
    if (Buffer.isBuffer(blob)) yield blob.subarray(offset);
    else yield* this.#bytes(blob, offset, signal);
  }

  /** @throws Fault data_loss when a blob is not there, or not of its size */
  check(descriptor: Descriptor): void {
    const size = this.size(descriptor.digest);
    if (size === undefined) throw this.#missing(descriptor);
    if (size !== descriptor.size) throw this.#corrupt(descriptor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  /** The error for a blob that does not have its digest. */
  #corrupt(descriptor: Descriptor): Fault {
    return new Fault("data_loss", `Cannot read ${this.#what}: its blob ${descriptor.digest} is damaged`, {
      hint: "Copy or save the archive again",
    });
  }

  #missing(descriptor: Descriptor): Fault {
    return new Fault("data_loss", `Cannot read ${this.#what}: its blob ${descriptor.digest} is missing`, {
      hint: "Save the archive again, with all layers",
    });
  }

  async #layoutImages(): Promise<ArchivedImage[]> {
    const what = `index.json of ${this.#what}`;
    const index = parseManifest(await this.#readMember("index.json"), what);
    if (index.kind !== "index") {
      throw new Fault("failed_precondition", `Cannot use ${what}: it is not an index`, {
        hint: "Save the archive again",
      });
    }
    const saved = await this.#savedNames();
    return index.manifests.map((root) => ({ root, names: namesOf(root, saved) }));
  }

  /** Newer Docker writes both layouts at once: names of the one for the images of the other. */
  async #savedNames(): Promise<readonly string[]> {
    if (!this.#members.has("manifest.json")) return [];
    const saved = parseDocument(savedImages, await this.#readMember("manifest.json"), this.#what);
    return saved.length === 1 ? (saved[0]?.RepoTags ?? []) : [];
  }

  async #savedImages(signal: AbortSignal | undefined): Promise<ArchivedImage[]> {
    const saved = parseDocument(
      savedImages,
      await this.#readMember("manifest.json"),
      `manifest.json of ${this.#what}`,
    );
    const images: ArchivedImage[] = [];
    for (const { Config, RepoTags, Layers } of saved) {
      const config = await this.#readMember(Config);
      const layers: Descriptor[] = [];
      for (const path of Layers ?? []) layers.push(await this.#hashed(path, signal));
      const manifest: Omit<Manifest, "kind"> & { schemaVersion: 2 } = {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: { mediaType: OCI_CONFIG, digest: digestOf(config), size: config.length },
        layers,
      };
      const bytes = Buffer.from(JSON.stringify(manifest));
      this.#blobs.set(manifest.config.digest, config);
      this.#blobs.set(digestOf(bytes), bytes);
      images.push({
        root: { mediaType: OCI_MANIFEST, digest: digestOf(bytes), size: bytes.length },
        names: RepoTags ?? [],
      });
    }
    return images;
  }

  async #hashed(path: string, signal: AbortSignal | undefined): Promise<Descriptor> {
    const member = this.#member(path);
    const hash = createHash("sha256");
    for await (const chunk of this.#bytes(member, 0, signal)) hash.update(chunk);
    const digest = `sha256:${hash.digest("hex")}`;
    this.#blobs.set(digest, member);
    const head = (await readAt(this.#file, member.offset, Math.min(member.size, 8))) ?? Buffer.alloc(0);
    return { mediaType: layerTypeOf(head), digest, size: member.size };
  }

  async #readMember(name: string): Promise<Buffer> {
    return await this.#readDocument(this.#member(name), name);
  }

  async #readDocument(member: TarMember, name: string): Promise<Buffer> {
    if (member.size > MAX_DOCUMENT) {
      throw new Fault(
        "failed_precondition",
        `Cannot use ${name} of ${this.#what}: it is larger than ${MAX_DOCUMENT >> 20} MiB`,
        {
          hint: "The image is malformed: build or fetch it again",
        },
      );
    }
    const bytes = await readAt(this.#file, member.offset, member.size);
    if (bytes === undefined) throw this.#changed();
    return bytes;
  }

  /** A member by name, through links: docker save links layers that images share. */
  #member(name: string): TarMember {
    let member = this.#members.get(name);
    for (let hop = 0; hop < MAX_LINKS && member?.link !== undefined; hop++)
      member = this.#members.get(member.link);
    if (member === undefined || member.link !== undefined) {
      throw new Fault(
        "data_loss",
        `Cannot read ${this.#what}: ${JSON.stringify(name.slice(0, 300))} is missing in it`,
        {
          hint: "Save the archive again, with all layers",
        },
      );
    }
    return member;
  }

  #blob(digest: string): TarMember | Buffer | undefined {
    return this.#blobs.get(digest) ?? this.#members.get(`blobs/sha256/${digest.slice("sha256:".length)}`);
  }

  async *#bytes(
    member: TarMember,
    offset: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    for (let at = offset; at < member.size; ) {
      throwIfAborted(signal);
      const bytes = await readAt(this.#file, member.offset + at, Math.min(READ_SIZE, member.size - at));
      if (bytes === undefined) throw this.#changed();
      yield bytes;
      at += bytes.length;
    }
  }

  #changed(): Fault {
    return new Fault("data_loss", `Cannot read ${this.#what}: it changed while it was read`, {
      hint: "Import it when nothing writes to it",
    });
  }
}

/** containerd's and Docker's annotation is a whole name; OCI's may be a bare tag, which names no image. */
function namesOf(root: Descriptor, saved: readonly string[]): readonly string[] {
  const full = root.annotations?.["io.containerd.image.name"];
  if (full !== undefined) return [full];
  const name = root.annotations?.["org.opencontainers.image.ref.name"];
  if (name !== undefined && /[/:]/.test(name)) return [name];
  return saved;
}
