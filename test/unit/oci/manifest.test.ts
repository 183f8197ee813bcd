import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { MAX_DOCUMENT } from "../../../src/oci/document.ts";
import { parseImageConfig } from "../../../src/oci/image-config.ts";
import { type Manifest, parseManifest } from "../../../src/oci/manifest.ts";
import { appliedLayerType, layerTypeOf } from "../../../src/oci/media-types.ts";

const A = digestOf("a");
const B = digestOf("b");
const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest: A, size: 2 };
const layer = { mediaType: `${OCI_LAYER}+gzip`, digest: B, size: 3 };

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const parse = (value: unknown) => parseManifest(bytes(value), "the test");

function refuses(
  value: unknown,
  words: RegExp,
  code: "failed_precondition" | "unimplemented" = "failed_precondition",
) {
  assert.throws(
    () => parseManifest(Buffer.isBuffer(value) ? value : bytes(value), "the test"),
    (error) => Fault.is(error, code) && words.test(error.message) && error.hint !== undefined,
  );
}

void test("a manifest is read with its config and layers", () => {
  const manifest = parse({
    schemaVersion: 2,
    config,
    layers: [layer],
    annotations: { x: "y" },
    subject: null,
  });
  assert.equal(manifest.kind, "manifest");
  assert.equal(manifest.mediaType, "application/vnd.oci.image.manifest.v1+json");
  assert.ok(manifest.kind === "manifest");
  assert.equal(manifest.config.digest, A);
  assert.deepEqual(
    manifest.layers.map(({ digest, size }) => [digest, size]),
    [[B, 3]],
  );
});

void test("an index is read with its platforms", () => {
  const platform = { os: "linux", architecture: "arm64", variant: "v8", "os.features": null };
  const index = parse({ schemaVersion: 2, manifests: [{ ...config, platform }] });
  assert.ok(index.kind === "index");
  assert.deepEqual(index.manifests[0]?.platform, { os: "linux", architecture: "arm64", variant: "v8" });
});

void test("lists that Go wrote as null are empty", () => {
  const manifest = parse({
    schemaVersion: 2,
    config: { ...config, annotations: null, platform: null },
    layers: null,
  });
  assert.ok(manifest.kind === "manifest");
  assert.deepEqual(manifest.layers, []);
});

void test("Docker's types are kept", () => {
  const mediaType = "application/vnd.docker.distribution.manifest.v2+json";
  assert.equal(parse({ schemaVersion: 2, mediaType, config, layers: [layer] }).mediaType, mediaType);
});

void test("Docker's first schema is refused by name", () => {
  refuses({ schemaVersion: 1, name: "x", fsLayers: [] }, /schema version 1/, "unimplemented");
});

void test("a document that is manifest and index at once is refused", () => {
  refuses({ schemaVersion: 2, config, layers: [layer], manifests: [] }, /at once/);
});

void test("a document whose type contradicts it is refused", () => {
  refuses(
    { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", config, layers: [] },
    /its type is/,
  );
  refuses(
    { schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", manifests: [] },
    /its type is/,
  );
});

const malformed: readonly (readonly [string, unknown, RegExp])[] = [
  ["text", Buffer.from("<html>"), /not JSON/],
  ["bytes that are not UTF-8", Buffer.from([0x7b, 0xff, 0x7d]), /not JSON/],
  ["null", null, /the test/],
  ["a list", [], /the test/],
  ["nothing of either", { schemaVersion: 2 }, /neither a config nor manifests/],
  ["another schema", { schemaVersion: 3, config, layers: [] }, /unknown schema version 3/],
  ["no schema", { config, layers: [] }, /schemaVersion/],
  [
    "a digest with a path in it",
    { schemaVersion: 2, config: { ...config, digest: "sha256:../../x" } },
    /config.digest/,
  ],
  [
    "another kind of digest",
    { schemaVersion: 2, config: { ...config, digest: `sha512:${"0".repeat(128)}` } },
    /config.digest/,
  ],
  ["a negative size", { schemaVersion: 2, config, layers: [{ ...layer, size: -1 }] }, /layers.0.size/],
  ["a broken size", { schemaVersion: 2, config, layers: [{ ...layer, size: 1.5 }] }, /layers.0.size/],
  [
    "a size beyond counting",
    { schemaVersion: 2, config, layers: [{ ...layer, size: 2 ** 60 }] },
    /layers.0.size/,
  ],
  ["a size as text", { schemaVersion: 2, config, layers: [{ ...layer, size: "3" }] }, /layers.0.size/],
  [
    "more layers than can be mounted",
    { schemaVersion: 2, config, layers: Array.from({ length: 501 }, () => layer) },
    /layers/,
  ],
  [
    "more manifests than anyone has",
    { schemaVersion: 2, manifests: Array.from({ length: 1001 }, () => config) },
    /manifests/,
  ],
  ["a document of any size", Buffer.alloc(MAX_DOCUMENT + 1, " "), /larger than 4 MiB/],
];
for (const [what, value, words] of malformed) {
  void test(`${what} is no manifest`, () => {
    refuses(value, words);
  });
}

const manifest: Manifest = { kind: "manifest", mediaType: "", config, layers: [layer] };
const image = { os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [A] } };
const configOf = (value: unknown, of: Manifest = manifest) => parseImageConfig(bytes(value), of, "the test");

void test("a config is read with its defaults", () => {
  assert.deepEqual(configOf({ ...image, config: null, history: null }), {
    platform: { os: "linux", architecture: "amd64", variant: undefined },
    env: [],
    workingDir: "",
    user: "",
    diffIds: [A],
  });
  const { env, workingDir, user } = configOf({
    ...image,
    config: { Env: ["A=b"], WorkingDir: "/w", User: "1:2" },
  });
  assert.deepEqual([env, workingDir, user], [["A=b"], "/w", "1:2"]);
});

void test("a config without layers, or with others than the manifest, is refused", () => {
  const precondition = (words: RegExp) => (error: unknown) =>
    Fault.is(error, "failed_precondition") && words.test(error.message) && error.hint !== undefined;
  assert.throws(
    () => configOf({ ...image, rootfs: { type: "layers", diff_ids: null } }),
    precondition(/no layers/),
  );
  assert.throws(
    () => configOf({ ...image, rootfs: { type: "layers", diff_ids: [A, B] } }),
    precondition(/manifest has 1 layers, its config 2/),
  );
  assert.throws(
    () => configOf({ ...image, rootfs: { type: "layers", diff_ids: ["x"] } }),
    precondition(/diff_ids.0/),
  );
  assert.throws(() => configOf({ os: "linux", architecture: "amd64" }), precondition(/rootfs/));
  const chart = { ...manifest, config: { ...config, mediaType: "application/vnd.cncf.helm.config.v1+json" } };
  assert.throws(() => configOf(image, chart), precondition(/not a container image but/));
});

void test("layers nobody can unpack are refused before they are fetched", () => {
  for (const mediaType of [
    `${OCI_LAYER}+gzip+encrypted`,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/octet-stream",
  ]) {
    const strange = { ...manifest, layers: [{ ...layer, mediaType }] };
    assert.throws(
      () => configOf(image, strange),
      (error) => Fault.is(error, "unimplemented") && error.message.includes(mediaType),
    );
  }
});

void test("a layer type becomes one containerd's differ knows", () => {
  const docker = "application/vnd.docker.image.rootfs.diff.tar";
  assert.equal(appliedLayerType(`${OCI_LAYER}+zstd`), `${OCI_LAYER}+zstd`);
  assert.equal(appliedLayerType(docker), OCI_LAYER);
  assert.equal(appliedLayerType(`${docker}.gzip`), `${docker}.gzip`);
  assert.equal(appliedLayerType(`${docker}.zstd`), `${OCI_LAYER}+zstd`);
});

void test("the first bytes of a layer tell how it is compressed", () => {
  assert.equal(layerTypeOf(Buffer.from([0x1f, 0x8b, 8])), `${OCI_LAYER}+gzip`);
  assert.equal(layerTypeOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd])), `${OCI_LAYER}+zstd`);
  assert.equal(layerTypeOf(Buffer.from("bin/")), OCI_LAYER);
  assert.equal(layerTypeOf(Buffer.alloc(0)), OCI_LAYER);
});
