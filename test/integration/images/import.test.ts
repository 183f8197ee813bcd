// Import into a real containerd: every kind of archive, and every kind of broken one.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { ContainerdClient } from "../../../src/containerd/client.ts";
import { ContainerdImages } from "../../../src/containerd/images/image-store.ts";
import { type CommandResult, mustRun } from "../../../src/lib/command.ts";
import { type Code, Fault } from "../../../src/lib/fault.ts";
import { chainIds } from "../../../src/oci/chain-id.ts";
import { startContainerd, type TestContainerd } from "../../support/containerd.ts";
import {
  collectGarbage,
  contentOf,
  ingestsOf,
  leasesOf,
  snapshotsOf,
} from "../../support/containerd-state.ts";
import {
  type ArchiveFiles,
  blobPath,
  dockerFiles,
  json,
  ociFiles,
  sha256,
  type TinyImage,
  tinyImage,
  tinyImageArchive,
  writeArchive,
} from "../../support/tiny-image.ts";

const cleanup = new AsyncDisposableStack();
let daemon: TestContainerd;
let dir: string;
let serial = 0;

before(async () => {
  daemon = cleanup.use(await startContainerd());
  dir = await mkdtemp("/tmp/memoh-import-");
  cleanup.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
});

after(async () => {
  await cleanup.disposeAsync();
});

interface Place extends AsyncDisposable {
  readonly client: ContainerdClient;
  readonly images: ContainerdImages;
}

/** An image store in a containerd namespace of its own. */
function place(): Place {
  const client = daemon.client(`${daemon.namespace}-${serial++}`);
  return {
    client,
    images: new ContainerdImages(client, { registry: { hosts: [] } }),
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
    },
  };
}

/** Runs a line in a new container of the image. */
async function runShell(at: Place, image: string, line: string): Promise<CommandResult> {
  const ctr = ["ctr", "-a", daemon.socket, "-n", at.client.namespace];
  return await mustRun([...ctr, "run", "--rm", image, `t${serial++}`, "/bin/sh", "-c", line]);
}

const archivePath = () => join(dir, `${serial++}.tar`);

/** Content that no other test has, so that nothing is there already: containerd shares blobs between namespaces. */
const unique = () => ({ "/etc/unique": `${serial++}-${process.pid}-${Date.now()}` });

async function refuses(
  archive: string,
  code: Code,
  words: RegExp,
  options: { readonly name?: string } = {},
): Promise<void> {
  await using at = place();
  await assert.rejects(
    at.images.import(archive, options),
    (error) => Fault.is(error, code) && words.test(error.message) && error.hint !== undefined,
  );
  assert.deepEqual(await at.images.list(), []);
  assert.deepEqual(await leasesOf(at.client), []);
  assert.deepEqual(await ingestsOf(at.client), []);
  assert.deepEqual(await contentOf(at.client), []);
  assert.deepEqual(await snapshotsOf(at.client), []);
}

async function brokenArchive(change: (files: ArchiveFiles, image: TinyImage) => void): Promise<string> {
  const image = await tinyImage({ name: "localhost/broken:1", layers: [unique()] });
  const files = ociFiles([image]);
  change(files, image);
  const path = archivePath();
  await writeArchive(path, files);
  return path;
}

for (const format of ["oci", "docker"] as const) {
  for (const compression of ["none", "gzip", "zstd"] as const) {
    void test(`a ${format} archive with ${compression} layers is imported, unpacked and named`, async () => {
      await using at = place();
      const path = archivePath();
      const name = `localhost/tiny:${format}-${compression}`;
      const image = await tinyImageArchive(path, {
        name,
        format,
        compression,
        layers: [unique()],
        env: ["A=b"],
      });
      const phases = new Set<string>();
      const infos = await at.images.import(path, { onProgress: ({ phase }) => phases.add(phase) });
      assert.equal(infos.length, 1);
      assert.equal(infos[0]?.name, name);
      assert.equal(infos[0]?.platform, "linux/amd64".replace("amd64", image.platform.architecture));
      assert.ok((infos[0]?.size ?? 0) > image.layers.reduce((sum, { size }) => sum + size, 0));
      assert.deepEqual(await at.images.config(name), {
        env: ["A=b"],
        workingDir: "",
        user: "",
        diffIds: image.diffIds,
      });
      assert.deepEqual((await snapshotsOf(at.client)).sort(), chainIds(image.diffIds).sort());
      assert.deepEqual(await leasesOf(at.client), []);
      assert.deepEqual([...phases], ["resolve", "layer", "unpack", "done"]);
      // What is kept is kept by labels alone.
      await collectGarbage(at.client);
      assert.equal((await contentOf(at.client)).length, image.blobs.size);
      assert.equal((await snapshotsOf(at.client)).length, image.diffIds.length);
    });
  }
}

void test("snapshots have the names ctr gives them", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/tiny:1", layers: [unique(), unique(), unique()] });
  await at.images.import(path);
  const other = `${daemon.namespace}-ctr`;
  await mustRun(["ctr", "-a", daemon.socket, "-n", other, "images", "import", path]);
  await using client = daemon.client(other);
  assert.deepEqual((await snapshotsOf(at.client)).sort(), (await snapshotsOf(client)).sort());
});

void test("a command of the imported image runs", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, {
    name: "localhost/tiny:run",
    layers: [{ "/etc/greeting": "hello from a layer\n" }],
  });
  await at.images.import(path);
  const { stdout } = await runShell(at, "localhost/tiny:run", "cat /etc/greeting");
  assert.equal(stdout, "hello from a layer\n");
});

void test("an image without a shell is imported without one", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/tiny:bare", shell: false });
  await at.images.import(path);
  await assert.rejects(runShell(at, "localhost/tiny:bare", "true"), /no such file/);
});

void test("importing twice changes nothing, another image takes the name over", async () => {
  await using at = place();
  const [one, two] = [archivePath(), archivePath()];
  await tinyImageArchive(one, { name: "localhost/tiny:1", layers: [unique()] });
  const second = await tinyImageArchive(two, { name: "localhost/tiny:1", layers: [unique()] });
  const first = await at.images.import(one);
  assert.deepEqual(await at.images.import(one), first);
  await at.images.import(two);
  const infos = await at.images.list();
  assert.deepEqual(
    infos.map(({ digest }) => digest),
    [second.manifest.digest],
  );
  await collectGarbage(at.client);
  assert.equal((await contentOf(at.client)).length, second.blobs.size);
});

void test("imports at the same time share what they have in common", async () => {
  await using at = place();
  const shared = unique();
  const paths = await Promise.all(
    [1, 2, 3, 4].map(async (n) => {
      const path = archivePath();
      await tinyImageArchive(path, {
        name: `localhost/tiny:${n}`,
        layers: [shared, n > 2 ? unique() : shared],
      });
      return path;
    }),
  );
  await Promise.all(paths.map(async (path) => await at.images.import(path)));
  assert.equal((await at.images.list()).length, 4);
  assert.deepEqual(await leasesOf(at.client), []);
  assert.ok((await snapshotsOf(at.client)).every((key) => key.startsWith("sha256:")));
});

void test("imports of two stores race for the same layers and both succeed", async () => {
  await using at = place();
  const other = new ContainerdImages(at.client, { registry: { hosts: [] } });
  const path = archivePath();
  const image = await tinyImageArchive(path, { name: "localhost/tiny:1", layers: [unique(), unique()] });
  await Promise.all([
    at.images.import(path, { name: "a:1" }),
    other.import(path, { name: "b:1" }),
    at.images.import(path, { name: "c:1" }),
  ]);
  assert.deepEqual(
    (await at.images.list()).map(({ name, digest }) => [name, digest]),
    ["a", "b", "c"].map((name) => [`docker.io/library/${name}:1`, image.manifest.digest]),
  );
  assert.deepEqual((await snapshotsOf(at.client)).sort(), chainIds(image.diffIds).sort());
});

void test("a name given overrides the archive's, normalized and with the default tag", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/tiny:1" });
  const infos = await at.images.import(path, { name: "bot" });
  assert.deepEqual(
    infos.map(({ name }) => name),
    ["docker.io/library/bot:latest"],
  );
  assert.ok(await at.images.get("bot"));
  assert.ok(await at.images.get("docker.io/library/bot:latest"));
  assert.equal(await at.images.get("localhost/tiny:1"), undefined);
});

void test("names come from every annotation and from RepoTags", async () => {
  await using at = place();
  const image = await tinyImage({ name: "unused", layers: [unique()] });
  const index = (annotations: Record<string, string>) =>
    json({ schemaVersion: 2, manifests: [{ ...image.manifest, annotations }] });
  const cases: [Record<string, string>, unknown[] | undefined, string][] = [
    [{ "org.opencontainers.image.ref.name": "team/a" }, undefined, "docker.io/team/a:latest"],
    [{ "io.containerd.image.name": "b:2" }, undefined, "docker.io/library/b:2"],
    [
      { "io.containerd.image.name": "c:3", "org.opencontainers.image.ref.name": "3" },
      undefined,
      "docker.io/library/c:3",
    ],
    [{ "org.opencontainers.image.ref.name": "4" }, ["d:4"], "docker.io/library/d:4"],
    [{}, ["localhost/e"], "localhost/e:latest"],
  ];
  for (const [annotations, tags, expected] of cases) {
    const files = ociFiles([image]);
    files.set("index.json", index(annotations));
    if (tags !== undefined) files.set("manifest.json", json([{ Config: "x", RepoTags: tags, Layers: null }]));
    const path = archivePath();
    await writeArchive(path, files);
    assert.deepEqual(
      (await at.images.import(path)).map(({ name }) => name),
      [expected],
    );
  }
});

void test("an archive of several images brings them all, and refuses one name for them", async () => {
  await using at = place();
  const images = [
    await tinyImage({ name: "localhost/one:1", layers: [unique()] }),
    await tinyImage({ name: "localhost/two:1", layers: [unique()] }),
  ];
  const path = archivePath();
  await writeArchive(path, ociFiles(images));
  assert.deepEqual(
    (await at.images.import(path)).map(({ name }) => name),
    ["localhost/one:1", "localhost/two:1"],
  );
  await refuses(path, "invalid_argument", /several images \(localhost\/one:1, localhost\/two:1\)/, {
    name: "x",
  });
});

void test("an index gives the image of this machine, and the index is what the name points to", async () => {
  await using at = place();
  const foreign = await tinyImage({
    name: "localhost/multi:1",
    platform: { os: "linux", architecture: "s390x" },
    layers: [unique()],
  });
  const own = await tinyImage({ name: "localhost/multi:1", layers: [unique()] });
  const path = archivePath();
  await writeArchive(path, ociFiles([foreign, own], { index: true }));
  const [info] = await at.images.import(path);
  assert.notEqual(info?.digest, own.manifest.digest);
  assert.deepEqual((await at.images.config("localhost/multi:1")).diffIds, own.diffIds);
  await collectGarbage(at.client);
  assert.equal((await contentOf(at.client)).length, own.blobs.size + 1);
});

void test("an archive made by skopeo for docker is imported", async () => {
  await using at = place();
  const [from, to] = [archivePath(), archivePath()];
  await tinyImageArchive(from, { name: "localhost/tiny:1", layers: [unique()] });
  await mustRun(["skopeo", "copy", "-q", `oci-archive:${from}`, `docker-archive:${to}:localhost/saved:1`]);
  assert.deepEqual(
    (await at.images.import(to)).map(({ name }) => name),
    ["localhost/saved:1"],
  );
});

void test("layers that docker save links to each other are found", async () => {
  await using at = place();
  const image = await tinyImage({ name: "localhost/linked:1", layers: [unique()] });
  const files = dockerFiles(image);
  const work = await mkdtemp(join(dir, "linked-"));
  for (const [name, content] of files) {
    await mustRun(["mkdir", "-p", join(work, name, "..")]);
    await writeFile(join(work, name), content);
  }
  const [last] = [...files.keys()].filter((name) => name.endsWith("layer.tar")).slice(-1);
  assert.ok(last);
  await mustRun(["mv", join(work, last), join(work, "shared.tar")]);
  await mustRun(["ln", "-s", "../shared.tar", join(work, last)]);
  const path = archivePath();
  await mustRun(["tar", "-cf", path, "-C", work, "."]);
  const [info] = await at.images.import(path);
  assert.equal(info?.name, "localhost/linked:1");
  assert.deepEqual((await at.images.config("localhost/linked:1")).diffIds, image.diffIds);
});

void test("a missing layer is named before anything is written", async () => {
  const path = await brokenArchive((files, image) => {
    files.delete(blobPath(image.layers[1]?.digest ?? ""));
  });
  await refuses(path, "data_loss", /sha256:[0-9a-f]{64} is missing/);
  await using at = place();
  const phases = new Set<string>();
  await assert.rejects(at.images.import(path, { onProgress: ({ phase }) => phases.add(phase) }));
  assert.deepEqual([...phases], ["resolve"]);
});

void test("a corrupt layer leaves nothing behind", async () => {
  const path = await brokenArchive((files, image) => {
    const name = blobPath(image.layers[1]?.digest ?? "");
    const blob = Buffer.from(files.get(name) ?? "");
    blob[blob.length - 1] = (blob.at(-1) ?? 0) ^ 1;
    files.set(name, blob);
  });
  await refuses(path, "data_loss", /do not have that digest/);
});

void test("a corrupt manifest and a corrupt config are refused", async () => {
  const spoil = async (part: "manifest" | "config") =>
    await brokenArchive((files, image) => {
      files.set(blobPath(image[part].digest), Buffer.from("{}"));
    });
  await refuses(await spoil("manifest"), "data_loss", /is damaged/);
  await refuses(await spoil("config"), "data_loss", /is damaged/);
});

void test("a layer that is not what the config says is found when it is unpacked", async () => {
  const path = await brokenArchive((files, image) => {
    // Everything has its digest; only the config's diff id lies.
    const config = JSON.parse(files.get(blobPath(image.config.digest))?.toString() ?? "") as {
      rootfs: { diff_ids: string[] };
    };
    config.rootfs.diff_ids[1] = sha256(Buffer.from("something else"));
    const configBytes = json(config);
    const manifest = {
      ...(JSON.parse(files.get(blobPath(image.manifest.digest))?.toString() ?? "") as object),
      config: { ...image.config, digest: sha256(configBytes), size: configBytes.length },
    };
    const bytes = json(manifest);
    files.set(blobPath(sha256(configBytes)), configBytes);
    files.set(blobPath(sha256(bytes)), bytes);
    const root = { ...image.manifest, digest: sha256(bytes), size: bytes.length };
    files.set(
      "index.json",
      json({
        schemaVersion: 2,
        manifests: [{ ...root, annotations: { "io.containerd.image.name": "localhost/liar:1" } }],
      }),
    );
  });
  await refuses(path, "data_loss", /its content is not what the image says/);
});

void test("an image for another machine is refused with both platforms named", async () => {
  for (const platform of [
    { os: "linux", architecture: "s390x" },
    { os: "windows", architecture: "amd64" },
  ]) {
    const path = archivePath();
    await tinyImageArchive(path, { name: "localhost/foreign:1", platform });
    await refuses(
      path,
      "failed_precondition",
      new RegExp(`it is for ${platform.os}/${platform.architecture}, this machine is linux/`),
    );
  }
  const images = await Promise.all(
    ["s390x", "riscv64"].map(
      async (architecture) =>
        await tinyImage({ name: "localhost/foreign:1", platform: { os: "linux", architecture } }),
    ),
  );
  const path = archivePath();
  await writeArchive(path, ociFiles(images, { index: true }));
  await refuses(path, "failed_precondition", /it is for linux\/s390x, linux\/riscv64, this machine/);
});

void test("a cut archive is refused wherever it is cut", async () => {
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/cut:1", layers: [unique()] });
  const whole = await readFile(path);
  for (const at of [700, 5_000, 200_000, whole.length - 60_000, whole.length - 1800]) {
    const cut = archivePath();
    await writeFile(cut, whole.subarray(0, at));
    await using there = place();
    await assert.rejects(there.images.import(cut), (error) =>
      Fault.is(error, "data_loss", "invalid_argument"),
    );
    assert.deepEqual(await there.images.list(), []);
    assert.deepEqual(await contentOf(there.client), []);
  }
  await truncate(path, 100);
  await refuses(path, "invalid_argument", /no image archive/);
});

void test("what is no image archive is refused and told apart", async () => {
  const path = archivePath();
  await writeFile(path, "just text\n".repeat(1000));
  await refuses(path, "invalid_argument", /no image archive/);
  await writeFile(path, "");
  await refuses(path, "invalid_argument", /no image archive/);
  await mustRun(["tar", "-cf", path, "-C", "/etc", "hostname"]);
  await refuses(path, "invalid_argument", /neither index.json nor manifest.json/);
  await mustRun(["tar", "-czf", path, "-C", "/etc", "hostname"]);
  await refuses(path, "invalid_argument", /whole archive is compressed/);
  await refuses(join(dir, "absent.tar"), "not_found", /no such file/);
  await refuses(dir, "invalid_argument", /not a regular file/);
  await mustRun(["mkfifo", join(dir, "fifo")]);
  await refuses(join(dir, "fifo"), "invalid_argument", /not a regular file/);
});

void test("an archive that does not name its image needs a name", async () => {
  const path = await brokenArchive((files, image) => {
    files.set(
      "index.json",
      json({
        schemaVersion: 2,
        manifests: [{ ...image.manifest, annotations: { "org.opencontainers.image.ref.name": "1.0" } }],
      }),
    );
  });
  await refuses(path, "invalid_argument", /does not say what its image is called/);
  await using at = place();
  assert.equal((await at.images.import(path, { name: "localhost/named:1" }))[0]?.name, "localhost/named:1");
});

void test("a bad name is refused before anything is written", async () => {
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/tiny:1" });
  await refuses(path, "invalid_argument", /Cannot use "Upper" as an image/, { name: "Upper" });
});

void test("a cancelled import leaves nothing behind", async () => {
  const path = archivePath();
  await tinyImageArchive(path, {
    name: "localhost/tiny:1",
    compression: "none",
    layers: [{ "/big": Buffer.alloc(8 << 20, "x") }, unique()],
  });
  await using at = place();
  const controller = new AbortController();
  const importing = at.images.import(path, {
    signal: controller.signal,
    onProgress: ({ phase, done = 0 }) => {
      if (phase === "layer" && done > 1 << 20) controller.abort(new Fault("cancelled", "enough"));
    },
  });
  await assert.rejects(importing, (error) => Fault.is(error, "cancelled") && error.message === "enough");
  assert.deepEqual(await at.images.list(), []);
  assert.deepEqual(await leasesOf(at.client), []);
  assert.deepEqual(await ingestsOf(at.client), []);
  assert.deepEqual(await contentOf(at.client), []);
});

void test("an import cancelled while it unpacks leaves no snapshot", async () => {
  const path = archivePath();
  const layers = [{ "/big": Buffer.alloc(64 << 20, "x") }];
  await tinyImageArchive(path, { name: "localhost/tiny:1", layers });
  await using at = place();
  const controller = new AbortController();
  const importing = at.images.import(path, {
    signal: controller.signal,
    onProgress: ({ phase, done }) => {
      if (phase === "unpack" && done === 1)
        setTimeout(() => {
          controller.abort(new Fault("cancelled", "enough"));
        }, 20);
    },
  });
  await assert.rejects(importing, (error) => Fault.is(error, "cancelled") && error.message === "enough");
  assert.deepEqual(await at.images.list(), []);
  assert.deepEqual(await leasesOf(at.client), []);
  assert.deepEqual(await snapshotsOf(at.client), []);
  assert.deepEqual(await contentOf(at.client), []);
});

void test("removing an image takes its content and snapshots with it, and says whether it was there", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, { name: "localhost/tiny:1", layers: [unique()] });
  await at.images.import(path);
  assert.equal(await at.images.remove("localhost/tiny:1"), true);
  assert.equal(await at.images.remove("localhost/tiny:1"), false);
  assert.equal(await at.images.get("localhost/tiny:1"), undefined);
  await assert.rejects(
    at.images.config("localhost/tiny:1"),
    (error) => Fault.is(error, "not_found") && error.hint !== undefined,
  );
  assert.deepEqual(await contentOf(at.client), []);
  assert.deepEqual(await snapshotsOf(at.client), []);
});

void test("an image whose snapshots are gone is unpacked again, one whose layers are gone says so", async () => {
  await using at = place();
  const path = archivePath();
  const image = await tinyImageArchive(path, { name: "localhost/tiny:1", layers: [unique()] });
  await at.images.import(path);
  const chain = chainIds(image.diffIds).reverse();
  const dropSnapshots = async () => {
    for (const key of chain) await at.client.snapshots.remove({ snapshotter: "overlayfs", key });
  };
  await dropSnapshots();
  await at.images.unpack("localhost/tiny:1");
  assert.deepEqual((await snapshotsOf(at.client)).sort(), chain.toSorted());
  await at.images.unpack("localhost/tiny:1");
  await dropSnapshots();
  await at.client.content.delete({ digest: image.layers[1]?.digest ?? "" });
  await assert.rejects(
    at.images.unpack("localhost/tiny:1"),
    (error) => Fault.is(error, "not_found") && error.hint === "Pull or import the image again",
  );
  assert.ok((await snapshotsOf(at.client)).every((key) => key.startsWith("sha256:")));
  await at.client.content.delete({ digest: image.config.digest });
  const other = new ContainerdImages(at.client, { registry: { hosts: [] } });
  await assert.rejects(
    other.config("localhost/tiny:1"),
    (error) => Fault.is(error, "not_found") && error.hint === "Pull or import the image again",
  );
  const [listed] = await other.list();
  assert.deepEqual([listed?.name, listed?.size, listed?.platform], ["localhost/tiny:1", 0, ""]);
});

void test("another image of the same short name is not taken for the one asked for", async () => {
  await using at = place();
  const path = archivePath();
  await tinyImageArchive(path, { name: "registry.example/team/alpine:3" });
  await at.images.import(path);
  assert.equal(await at.images.get("alpine:3"), undefined);
  assert.equal(await at.images.get("team/alpine:3"), undefined);
  assert.ok(await at.images.get("registry.example/team/alpine:3"));
});
