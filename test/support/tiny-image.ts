// Small real images for tests, made from Debian's busybox-static: no registry, no build tool, no network.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { arch } from "node:os";
import { promisify } from "node:util";
import { gzip, zstdCompress } from "node:zlib";
import { pack } from "tar-stream";
import { mustRun } from "../../src/lib/command.ts";

export interface TinyImageOptions {
  /** `localhost/tiny:1` */
  readonly name: string;
  /** What writes such archives: skopeo and buildah (`oci`), or `docker save` (`docker`). */
  readonly format?: "oci" | "docker";
  readonly compression?: Compression;
  /** False leaves /bin/sh out. */
  readonly shell?: boolean;
  /** Of the host when absent. What is inside is the host's anyway. */
  readonly platform?: TinyPlatform;
  readonly env?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  /** Each becomes a layer of its own on top: absolute path to content. */
  readonly layers?: readonly Readonly<Record<string, string | Buffer>>[];
}

export interface TinyPlatform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface TinyDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: TinyPlatform;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An image as blobs; what an archive or a registry is made from. */
export interface TinyImage {
  readonly name: string;
  readonly manifest: TinyDescriptor;
  readonly config: TinyDescriptor;
  readonly layers: readonly TinyDescriptor[];
  readonly diffIds: readonly string[];
  readonly platform: TinyPlatform;
  /** Every blob, manifest included, by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

/** Files of an archive, in order. Change them to make broken ones. */
export type ArchiveFiles = Map<string, Buffer>;

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar";
const SHELLS = new Set(["sh", "ash", "hush"]);
/** Fixed, so that the same options give the same digests. */
const WHEN = new Date("2026-01-01T00:00:00Z");

/** Writes an archive of one small image with busybox's commands in /bin. @returns what is in it */
export async function tinyImageArchive(path: string, options: TinyImageOptions): Promise<TinyImage> {
  const image = await tinyImage(options);
  await writeArchive(path, options.format === "docker" ? dockerFiles(image) : ociFiles([image]));
  return image;
}

/** An image in memory. */
export async function tinyImage(options: TinyImageOptions): Promise<TinyImage> {
  const platform = options.platform ?? { os: "linux", architecture: hostArchitecture() };
  const compression = options.compression ?? "gzip";
  const packed = [await baseLayer(options.shell ?? true, compression)];
  for (const files of options.layers ?? []) packed.push(await packLayer(await fileLayer(files), compression));
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, blob: Buffer): TinyDescriptor => {
    const digest = sha256(blob);
    blobs.set(digest, blob);
    return { mediaType, digest, size: blob.length };
  };
  const layers = packed.map(({ mediaType, blob }) => add(mediaType, blob));
  const diffIds = packed.map(({ diffId }) => diffId);
  const config = add(
    CONFIG,
    json({
      ...platform,
      created: WHEN.toISOString(),
      config: {
        Env: options.env ?? ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        Cmd: ["/bin/sh"],
        ...(options.workingDir === undefined ? {} : { WorkingDir: options.workingDir }),
        ...(options.user === undefined ? {} : { User: options.user }),
      },
      rootfs: { type: "layers", diff_ids: diffIds },
      history: packed.map(() => ({ created: WHEN.toISOString() })),
    }),
  );
  const manifest = add(MANIFEST, json({ schemaVersion: 2, mediaType: MANIFEST, config, layers }));
  return { name: options.name, manifest, config, layers, diffIds, platform, blobs };
}

/** An index over images of several platforms, as one more blob. */
export function tinyIndex(images: readonly TinyImage[]): { descriptor: TinyDescriptor; blob: Buffer } {
  const manifests = images.map((image) => ({ ...image.manifest, platform: image.platform }));
  const blob = json({ schemaVersion: 2, mediaType: INDEX, manifests });
  return { descriptor: { mediaType: INDEX, digest: sha256(blob), size: blob.length }, blob };
}

/** The files of an OCI archive. With `index`, its one root is an index over all images, named as the first. */
export function ociFiles(
  images: readonly TinyImage[],
  options: { readonly index?: boolean } = {},
): ArchiveFiles {
  const files: ArchiveFiles = new Map();
  files.set("oci-layout", json({ imageLayoutVersion: "1.0.0" }));
  const named = (descriptor: TinyDescriptor, name: string) => ({
    ...descriptor,
    annotations: { "org.opencontainers.image.ref.name": name },
  });
  let manifests = images.map((image) => named(image.manifest, image.name));
  for (const image of images) {
    for (const [digest, blob] of image.blobs) files.set(blobPath(digest), blob);
  }
  if (options.index === true) {
    const { descriptor, blob } = tinyIndex(images);
    files.set(blobPath(descriptor.digest), blob);
    manifests = [named(descriptor, images[0]?.name ?? "")];
  }
  files.set("index.json", json({ schemaVersion: 2, manifests }));
  return files;
}

/** The files of a `docker save` archive, in the layout of Docker up to version 24. */
export function dockerFiles(image: TinyImage): ArchiveFiles {
  const files: ArchiveFiles = new Map();
  const layers = image.layers.map(({ digest }) => {
    const path = `${hex(digest)}/layer.tar`;
    files.set(path, blobOf(image, digest));
    return path;
  });
  const config = `${hex(image.config.digest)}.json`;
  files.set(config, blobOf(image, image.config.digest));
  files.set("manifest.json", json([{ Config: config, RepoTags: [image.name], Layers: layers }]));
  return files;
}

/** Writes files as a tar. */
export async function writeArchive(path: string, files: ArchiveFiles): Promise<void> {
  const tar = pack();
  for (const [name, content] of files) tar.entry({ name, mtime: WHEN }, content);
  tar.finalize();
  await writeFile(path, await collect(tar));
}

/** `blobs/sha256/…` */
export function blobPath(digest: string): string {
  return `blobs/sha256/${hex(digest)}`;
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Architecture of this machine in the names of OCI. */
export function hostArchitecture(): string {
  return arch() === "x64" ? "amd64" : arch();
}

type Compression = "none" | "gzip" | "zstd";

interface PackedLayer {
  readonly mediaType: string;
  readonly blob: Buffer;
  readonly diffId: string;
}

/** Base layers by kind: they are always the same, and compressing one takes longer than the rest. */
const bases = new Map<string, Promise<PackedLayer>>();

async function baseLayer(shell: boolean, compression: Compression): Promise<PackedLayer> {
  const key = `${shell} ${compression}`;
  const base = bases.get(key) ?? busyboxLayer(shell).then(async (tar) => await packLayer(tar, compression));
  bases.set(key, base);
  return await base;
}

async function busyboxLayer(shell: boolean): Promise<Buffer> {
  const { binary, applets } = await busybox();
  const tar = pack();
  const directory = (name: string, mode = 0o755) => {
    tar.entry({ name: `${name}/`, type: "directory", mode, mtime: WHEN });
  };
  for (const name of [
    "bin",
    "data",
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "usr",
    "usr/bin",
    "var",
  ]) {
    directory(name);
  }
  directory("tmp", 0o1777);
  tar.entry({ name: "bin/busybox", mode: 0o755, mtime: WHEN }, binary);
  for (const applet of applets) {
    if (applet === "busybox" || (!shell && SHELLS.has(applet))) continue;
    tar.entry({ name: `bin/${applet}`, type: "symlink", linkname: "busybox", mtime: WHEN });
  }
  tar.entry(
    { name: "etc/passwd", mtime: WHEN },
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
  );
  tar.entry({ name: "etc/group", mtime: WHEN }, "root:x:0:\nnogroup:x:65534:\n");
  tar.finalize();
  return await collect(tar);
}

async function fileLayer(files: Readonly<Record<string, string | Buffer>>): Promise<Buffer> {
  const tar = pack();
  for (const [path, content] of Object.entries(files)) {
    tar.entry({ name: path.replace(/^\/+/, ""), mtime: WHEN }, content);
  }
  tar.finalize();
  return await collect(tar);
}

async function busybox(): Promise<{ binary: Buffer; applets: string[] }> {
  const path = "/bin/busybox";
  if (!existsSync(path)) {
    await mustRun(
      [
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=120",
        "install",
        "-y",
        "--no-install-recommends",
        "busybox-static",
      ],
      { timeoutMs: 300_000, env: { DEBIAN_FRONTEND: "noninteractive" } },
    );
  }
  const { stdout } = await mustRun([path, "--list"]);
  return { binary: await readFile(path), applets: stdout.trim().split("\n") };
}

async function packLayer(tar: Buffer, compression: Compression): Promise<PackedLayer> {
  const diffId = sha256(tar);
  switch (compression) {
    case "none":
      return { mediaType: LAYER, blob: tar, diffId };
    case "gzip":
      return { mediaType: `${LAYER}+gzip`, blob: await promisify(gzip)(tar, { level: 1 }), diffId };
    case "zstd":
      return { mediaType: `${LAYER}+zstd`, blob: await promisify(zstdCompress)(tar), diffId };
  }
}

async function collect(stream: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks);
}

function blobOf(image: TinyImage, digest: string): Buffer {
  const blob = image.blobs.get(digest);
  if (blob === undefined) throw new Error(`no blob ${digest}`);
  return blob;
}

function hex(digest: string): string {
  return digest.slice("sha256:".length);
}
