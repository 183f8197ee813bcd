// Pull from a real registry into a real containerd.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { ContainerdClient } from "../../../src/containerd/client.ts";
import { ContainerdImages } from "../../../src/containerd/images/image-store.ts";
import type { TransferProgress } from "../../../src/core/runtime.ts";
import { mustRun } from "../../../src/lib/command.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import type { Platform } from "../../../src/oci/platform.ts";
import type { RegistryHost } from "../../../src/oci/registry-endpoints.ts";
import { startContainerd, type TestContainerd } from "../../support/containerd.ts";
import {
  collectGarbage,
  contentOf,
  ingestsOf,
  leasesOf,
  snapshotsOf,
} from "../../support/containerd-state.ts";
import {
  type FaultProxy,
  REGISTRY_PASSWORD,
  REGISTRY_USER,
  startFaultProxy,
  startRegistry,
  type TestRegistry,
} from "../../support/registry.ts";
import {
  ociFiles,
  type TinyImage,
  tinyImage,
  tinyImageArchive,
  writeArchive,
} from "../../support/tiny-image.ts";

const cleanup = new AsyncDisposableStack();
let daemon: TestContainerd;
let registry: TestRegistry;
let dir: string;
let serial = 0;

before(async () => {
  dir = await mkdtemp("/tmp/memoh-pull-");
  cleanup.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  registry = cleanup.use(await startRegistry());
  daemon = cleanup.use(await startContainerd());
});

after(async () => {
  await cleanup.disposeAsync();
});

interface Place extends AsyncDisposable {
  readonly client: ContainerdClient;
  readonly images: ContainerdImages;
  readonly proxy: FaultProxy;
}

/** An image store in a containerd namespace of its own, before a proxy of its own. */
async function place(
  more: Partial<RegistryHost> & {
    readonly upstream?: string;
    readonly platform?: Platform;
    readonly daemon?: TestContainerd;
  } = {},
): Promise<Place> {
  const { upstream = registry.host, platform, daemon: own = daemon, ...host } = more;
  const proxy = await startFaultProxy(upstream);
  const client = own.client(`${own.namespace}-${serial++}`);
  const configured = {
    host: proxy.host,
    mirrors: [],
    insecure: true,
    username: undefined,
    password: undefined,
    ...host,
  };
  return {
    client,
    proxy,
    images: new ContainerdImages(client, {
      registry: { hosts: [configured], retryMs: 1, times: { answerMs: 5_000, stallMs: 2_000 } },
      ...(platform === undefined ? {} : { platform }),
    }),
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

interface Pushed {
  readonly image: TinyImage;
  /** `/team/x:1` */
  readonly path: string;
}

/** A new image in the registry, with layers no other has. @param big bytes of its biggest layer */
async function pushed(
  options: { readonly path?: string; readonly big?: number; readonly layers?: number } = {},
): Promise<Pushed> {
  const { path = `/team/bot-${serial++}:1`, big = 1000, layers = 1 } = options;
  const image = await tinyImage({
    name: "localhost/x:1",
    compression: big > 10_000_000 ? "none" : "gzip",
    layers: [
      { "/big": randomBytes(big) },
      ...Array.from({ length: layers - 1 }, (_, i) => ({ [`/layer${i}`]: randomBytes(100) })),
    ],
  });
  await registry.put(image, path.slice(1));
  return { image, path };
}

/** An image in a registry that wants its password. */
async function pushedTo(guarded: TestRegistry, path: string): Promise<void> {
  const archive = join(dir, `${serial++}.tar`);
  await tinyImageArchive(archive, { name: "localhost/x:1" });
  await guarded.push(archive, path.slice(1), ["--preserve-digests"]);
}

const blobRequests = (proxy: FaultProxy) => proxy.requests.filter(({ path }) => path.includes("/blobs/"));

async function assertEmpty(at: Place): Promise<void> {
  assert.deepEqual(await at.images.list(), []);
  assert.deepEqual(await leasesOf(at.client), []);
  assert.deepEqual(await ingestsOf(at.client), []);
  assert.deepEqual(await contentOf(at.client), []);
  assert.deepEqual(await snapshotsOf(at.client), []);
}

void test("an image is pulled with progress, unpacked, and kept by labels alone", async () => {
  await using at = await place();
  const { image, path } = await pushed({ big: 300_000 });
  const seen: TransferProgress[] = [];
  const info = await at.images.pull(at.proxy.host + path, { onProgress: (progress) => seen.push(progress) });
  assert.equal(info.name, at.proxy.host + path);
  assert.equal(info.digest, image.manifest.digest);
  assert.deepEqual(await leasesOf(at.client), []);
  await collectGarbage(at.client);
  assert.equal((await contentOf(at.client)).length, image.blobs.size);
  assert.equal((await snapshotsOf(at.client)).length, image.diffIds.length);
  for (const { digest, size } of image.layers) {
    const layer = seen.filter(({ phase, item }) => phase === "layer" && item === digest);
    assert.deepEqual(layer.at(-1), { phase: "layer", item: digest, done: size, total: size });
  }
  assert.equal(seen[0]?.phase, "resolve");
  assert.equal(seen.at(-1)?.phase, "done");
});

void test("a command of the pulled image runs", async () => {
  await using at = await place();
  const { path } = await pushed();
  await at.images.pull(at.proxy.host + path);
  const ctr = ["ctr", "-a", daemon.socket, "-n", at.client.namespace];
  const { stdout } = await mustRun([
    ...ctr,
    "run",
    "--rm",
    at.proxy.host + path,
    `p${serial++}`,
    "/bin/echo",
    "here",
  ]);
  assert.equal(stdout, "here\n");
});

void test("the tag latest is taken when none is given", async () => {
  await using at = await place();
  const { image } = await pushed({ path: "/team/tagless:latest" });
  const info = await at.images.pull(`${at.proxy.host}/team/tagless`);
  assert.equal(info.name, `${at.proxy.host}/team/tagless:latest`);
  assert.equal(info.digest, image.manifest.digest);
  assert.ok(await at.images.get(`${at.proxy.host}/team/tagless`));
});

void test("a digest pins the image, whatever the tag beside it says", async () => {
  await using at = await place();
  const { image } = await pushed({ path: "/team/pinned:1" });
  await pushed({ path: "/team/pinned:1" });
  const ref = `${at.proxy.host}/team/pinned:1@${image.manifest.digest}`;
  assert.equal((await at.images.pull(ref)).digest, image.manifest.digest);
  assert.ok(await at.images.get(ref));
});

void test("an image that is there is not asked for again, unless always", async () => {
  await using at = await place();
  const { image, path } = await pushed();
  await at.images.pull(at.proxy.host + path);
  const before = at.proxy.requests.length;
  await at.images.pull(at.proxy.host + path);
  assert.equal(at.proxy.requests.length, before);

  await at.images.pull(at.proxy.host + path, { always: true });
  assert.equal(
    blobRequests(at.proxy).filter(({ path: p }) => p.includes(image.layers[1]?.digest ?? "")).length,
    1,
  );

  const newer = await pushed({ path });
  assert.equal((await at.images.pull(at.proxy.host + path)).digest, image.manifest.digest);
  assert.equal(
    (await at.images.pull(at.proxy.host + path, { always: true })).digest,
    newer.image.manifest.digest,
  );
});

void test("an image of which a layer has gone is pulled again", async () => {
  await using at = await place();
  const { image, path } = await pushed();
  await at.images.pull(at.proxy.host + path);
  await at.client.content.delete({ digest: image.layers[1]?.digest ?? "" });
  await at.images.pull(at.proxy.host + path);
  assert.equal((await contentOf(at.client)).length, image.blobs.size);
});

void test("pulls of one image at the same time fetch it once", async () => {
  await using at = await place();
  const { image, path } = await pushed();
  const infos = await Promise.all([1, 2, 3, 4].map(async () => await at.images.pull(at.proxy.host + path)));
  assert.ok(infos.every(({ digest }) => digest === image.manifest.digest));
  const paths = blobRequests(at.proxy).map(({ path: p }) => p);
  assert.ok(paths.some((p) => p.includes(image.layers[1]?.digest ?? "?")));
  assert.equal(new Set(paths).size, paths.length);
});

void test("pulls of different images at the same time fetch what they share once", async () => {
  await using at = await place();
  const images = [await pushed(), await pushed(), await pushed()];
  await Promise.all(images.map(async ({ path }) => await at.images.pull(at.proxy.host + path)));
  const [base] = images[0]?.image.layers ?? [];
  assert.ok(images.every(({ image }) => image.layers[0]?.digest === base?.digest));
  assert.ok(blobRequests(at.proxy).filter(({ path }) => path.includes(base?.digest ?? "?")).length <= 1);
  assert.deepEqual(await leasesOf(at.client), []);
});

void test("what another namespace of containerd has is not downloaded again", async () => {
  await using one = await place();
  await using two = await place();
  const { image, path } = await pushed({ big: 200_000 });
  await one.images.pull(one.proxy.host + path);
  await two.images.pull(two.proxy.host + path);
  const layers = blobRequests(two.proxy).filter(({ path: p }) =>
    image.layers.some(({ digest }) => p.includes(digest)),
  );
  assert.deepEqual(layers, []);
  assert.equal((await contentOf(two.client)).length, image.blobs.size);
});

void test("three layers are on their way at once, and no more", async () => {
  await using at = await place();
  const { image, path } = await pushed({ layers: 7 });
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  let waiting = 0;
  at.proxy.rule = async ({ path: p }) => {
    if (!image.layers.slice(1).some(({ digest }) => p.includes(digest))) return { kind: "pass" };
    waiting++;
    // Let go a while after the third came: time for a fourth to show itself.
    if (waiting === 3)
      void sleep(50).then(() => {
        most = waiting;
        release();
      });
    await released;
    return { kind: "pass" };
  };
  let most = 0;
  await Promise.race([
    at.images.pull(at.proxy.host + path),
    sleep(20_000).then(() => assert.fail(`${waiting} at once`)),
  ]);
  assert.equal(most, 3);
});

void test("an index gives the image of the platform asked for", async () => {
  const images = await Promise.all(
    ["amd64", "arm64"].map(
      async (architecture) =>
        await tinyImage({
          name: "localhost/multi:1",
          platform: { os: "linux", architecture },
          layers: [{ "/arch": architecture }],
        }),
    ),
  );
  const archive = join(dir, `${serial++}.tar`);
  await writeArchive(archive, ociFiles(images, { index: true }));
  await registry.push(archive, "team/multi:1", ["--all", "--preserve-digests"]);
  for (const image of images) {
    await using at = await place({ platform: image.platform });
    const info = await at.images.pull(`${at.proxy.host}/team/multi:1`);
    assert.equal(info.platform, `linux/${image.platform.architecture}`);
    assert.deepEqual((await at.images.config(info.name)).diffIds, image.diffIds);
    await collectGarbage(at.client);
    assert.equal((await contentOf(at.client)).length, image.blobs.size + 1);
  }
  await using at = await place({ platform: { os: "linux", architecture: "riscv64" } });
  await assert.rejects(
    at.images.pull(`${at.proxy.host}/team/multi:1`),
    (error) =>
      Fault.is(error, "failed_precondition") &&
      error.message.includes("it is for linux/amd64, linux/arm64, this machine is linux/riscv64"),
  );
  await assertEmpty(at);
});

void test("a registry with a password lets its user in and tells others what is wrong", async () => {
  await using basic = await startRegistry({ auth: "basic" });
  const path = "/team/bot:1";
  await pushedTo(basic, path);
  const password = { reveal: () => REGISTRY_PASSWORD };
  await using known = await place({ upstream: basic.host, username: REGISTRY_USER, password });
  await known.images.pull(known.proxy.host + path);
  await using stranger = await place({ upstream: basic.host });
  await assert.rejects(
    stranger.images.pull(stranger.proxy.host + path),
    (error) => Fault.is(error, "unauthenticated") && error.message.includes("asks for credentials"),
  );
  await assertEmpty(stranger);
  await using wrong = await place({
    upstream: basic.host,
    username: REGISTRY_USER,
    password: { reveal: () => "no" },
  });
  await assert.rejects(
    wrong.images.pull(wrong.proxy.host + path),
    (error) =>
      Fault.is(error, "unauthenticated") &&
      error.message.includes("refuses the credentials") &&
      error.hint?.includes(`[registries."${wrong.proxy.host}"]`) === true,
  );
  assert.ok(wrong.proxy.requests.length <= 2, "wrong credentials are not tried again and again");
});

void test("a registry with a token server serves strangers, users, and refuses what is private", async () => {
  await using tokens = await startRegistry({ auth: "token" });
  const [open, secret] = ["/team/bot:1", "/private/bot:1"];
  await pushedTo(tokens, open);
  await pushedTo(tokens, secret);
  await using stranger = await place({ upstream: tokens.host });
  await stranger.images.pull(stranger.proxy.host + open);
  await assert.rejects(
    stranger.images.pull(stranger.proxy.host + secret),
    (error) => Fault.is(error, "unauthenticated") && error.message.includes("asks for credentials"),
  );
  const password = { reveal: () => REGISTRY_PASSWORD };
  await using user = await place({ upstream: tokens.host, username: REGISTRY_USER, password });
  await user.images.pull(user.proxy.host + secret);
  assert.ok(
    user.proxy.requests.every(({ headers }) => !(headers.authorization ?? "").startsWith("Basic ")),
    "the password goes to the token server only",
  );
  await using wrong = await place({
    upstream: tokens.host,
    username: REGISTRY_USER,
    password: { reveal: () => "no" },
  });
  await assert.rejects(
    wrong.images.pull(wrong.proxy.host + open),
    (error) => Fault.is(error, "unauthenticated") && error.message.includes("refuses the credentials"),
  );
});

void test("an image the registry does not have is not found", async () => {
  await using at = await place();
  await assert.rejects(at.images.pull(`${at.proxy.host}/team/absent:1`), (error) =>
    Fault.is(error, "not_found"),
  );
  await assertEmpty(at);
});

void test("a registry that is down is unavailable", async () => {
  await using at = await place();
  await at.proxy[Symbol.asyncDispose]();
  await assert.rejects(at.images.pull(`${at.proxy.host}/team/bot:1`), (error) =>
    Fault.is(error, "unavailable"),
  );
  assert.deepEqual(await at.images.list(), []);
});

void test("a bad reference is refused without a request", async () => {
  await using at = await place();
  await assert.rejects(at.images.pull(`${at.proxy.host}/Team`), (error) =>
    Fault.is(error, "invalid_argument"),
  );
  assert.equal(at.proxy.requests.length, 0);
});

void test("wrong bytes leave nothing behind", async () => {
  await using at = await place();
  const { image, path } = await pushed({ big: 200_000 });
  const bad = image.layers[1]?.digest ?? "";
  at.proxy.rule = ({ path: p }) => (p.includes(bad) ? { kind: "corrupt" } : { kind: "pass" });
  await assert.rejects(at.images.pull(at.proxy.host + path), (error) => Fault.is(error, "data_loss"));
  await assertEmpty(at);
});

void test("wrong bytes from a mirror are fetched from the registry", async () => {
  const { image, path } = await pushed({ big: 200_000 });
  await using mirror = await startFaultProxy(registry.host);
  mirror.rule = ({ path: p }) => (p.includes("/blobs/") ? { kind: "corrupt" } : { kind: "pass" });
  await using at = await place({ mirrors: [`http://${mirror.host}`] });
  assert.equal((await at.images.pull(at.proxy.host + path)).digest, image.manifest.digest);
  assert.ok(mirror.requests.length >= 2);
});

void test("cut connections do not fail a pull", async () => {
  await using at = await place();
  const { image, path } = await pushed({ big: 2_000_000 });
  at.proxy.rule = ({ path: p }) =>
    p.includes("/blobs/") ? { kind: "cut", after: 400_000 } : { kind: "pass" };
  assert.equal((await at.images.pull(at.proxy.host + path)).digest, image.manifest.digest);
  assert.ok(blobRequests(at.proxy).some(({ headers }) => headers.range !== undefined));
});

void test("a pull that failed is gone on with by the next one", async () => {
  await using at = await place();
  const { image, path } = await pushed({ big: 6_000_000 });
  const big = image.layers[1];
  assert.ok(big);
  at.proxy.rule = ({ path: p, before }) => {
    if (!p.includes(big.digest)) return { kind: "pass" };
    return before === 0 ? { kind: "cut", after: 4_000_000 } : { kind: "answer", status: 500 };
  };
  await assert.rejects(at.images.pull(at.proxy.host + path), (error) => Fault.is(error, "unavailable"));
  assert.deepEqual(await at.images.list(), []);
  assert.equal((await ingestsOf(at.client)).length, 1);
  const before = at.proxy.requests.length;
  at.proxy.rule = () => ({ kind: "pass" });
  await at.images.pull(at.proxy.host + path);
  const later = at.proxy.requests.slice(before).filter(({ path: p }) => p.includes(big.digest));
  assert.equal(later.length, 1);
  assert.match(later[0]?.headers.range ?? "", /^bytes=[1-9]\d{5,}-$/);
  assert.deepEqual(await ingestsOf(at.client), []);
});

void test("a cancelled pull names nothing", async () => {
  await using at = await place();
  const { path } = await pushed({ big: 3_000_000 });
  const controller = new AbortController();
  const pulling = at.images.pull(at.proxy.host + path, {
    signal: controller.signal,
    onProgress: ({ phase, done = 0 }) => {
      if (phase === "layer" && done > 500_000) controller.abort(new Fault("cancelled", "enough"));
    },
  });
  await assert.rejects(pulling, (error) => Fault.is(error, "cancelled") && error.message === "enough");
  assert.deepEqual(await at.images.list(), []);
  await at.images.pull(at.proxy.host + path);
});

void test("containerd killed in the middle of a pull and started again does not fail it", async () => {
  await using own = await startContainerd();
  await using at = await place({ daemon: own });
  const { image, path } = await pushed({ big: 8_000_000 });
  let killed: Promise<void> | undefined;
  const pulling = at.images.pull(at.proxy.host + path, {
    onProgress: ({ phase, done = 0 }) => {
      if (phase === "layer" && done > 3_000_000)
        killed ??= own.kill().then(async () => {
          await own.restart();
        });
    },
  });
  assert.equal((await pulling).digest, image.manifest.digest);
  assert.ok(killed);
  await killed;
  assert.equal((await contentOf(at.client)).length, image.blobs.size);
});

void test("a full disk is said to be one, and what was written is given back", async () => {
  const root = await mkdtemp("/tmp/memoh-full-");
  await using disk = new AsyncDisposableStack();
  disk.defer(async () => {
    await rm(root, { recursive: true, force: true });
  });
  await mustRun(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", root]);
  disk.defer(async () => {
    await mustRun(["umount", "-l", root]);
  });
  await using own = await startContainerd({ root });
  await using at = await place({ daemon: own });
  const { path } = await pushed({ big: 30_000_000 });
  await assert.rejects(
    at.images.pull(at.proxy.host + path),
    (error) => Fault.is(error, "resource_exhausted") && error.hint?.includes("Free space") === true,
  );
  await assertEmpty(at);
  const small = await pushed();
  await at.images.pull(at.proxy.host + small.path);
  // Content fits, but not twice: now the unpacking meets the end of the disk.
  const { path: twice } = await pushed({ big: 14_000_000 });
  await assert.rejects(at.images.pull(at.proxy.host + twice), (error) =>
    Fault.is(error, "resource_exhausted"),
  );
  assert.equal((await at.images.list()).length, 1);
  assert.deepEqual(await ingestsOf(at.client), []);
  assert.ok((await snapshotsOf(at.client)).every((key) => key.startsWith("sha256:")));
});
