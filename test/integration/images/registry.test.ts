// The registry client against a real registry, with faults put between the two.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Descriptor } from "../../../src/oci/manifest.ts";
import { type BlobSink, Repository } from "../../../src/oci/registry.ts";
import type { RegistryHost } from "../../../src/oci/registry-endpoints.ts";
import {
  type FaultProxy,
  startFaultProxy,
  startRegistry,
  type TestRegistry,
} from "../../support/registry.ts";
import { type TinyImage, tinyImageArchive } from "../../support/tiny-image.ts";

const REPOSITORY = "team/bot";
const cleanup = new AsyncDisposableStack();
let registry: TestRegistry;
let image: TinyImage;
let layer: Descriptor;
let bytes: Buffer;

before(async () => {
  const dir = await mkdtemp("/tmp/memoh-regtest-");
  cleanup.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  registry = cleanup.use(await startRegistry());
  image = await tinyImageArchive(join(dir, "a.tar"), { name: "localhost/bot:1" });
  await registry.push(join(dir, "a.tar"), `${REPOSITORY}:1`, ["--preserve-digests"]);
  const [first] = image.layers;
  assert.ok(first);
  layer = first;
  bytes = image.blobs.get(layer.digest) ?? Buffer.alloc(0);
});

after(async () => {
  await cleanup.disposeAsync();
});

/** A sink in memory that may begin with bytes of an earlier attempt. */
class MemorySink implements BlobSink {
  #chunks: Buffer[];
  readonly digest: string;
  resets = 0;

  constructor(digest: string, first: Buffer = Buffer.alloc(0)) {
    this.digest = digest;
    this.#chunks = [first];
  }

  get content(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get offset(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#chunks.push(Buffer.from(chunk));
    await Promise.resolve();
  }

  async commit(): Promise<void> {
    if (digestOf(this.content) !== this.digest) throw new Fault("data_loss", "not the digest");
    await Promise.resolve();
  }

  async reset(): Promise<void> {
    this.resets++;
    this.#chunks = [];
    await Promise.resolve();
  }
}

function host(name: string, more: Partial<RegistryHost> = {}): RegistryHost {
  return { host: name, mirrors: [], insecure: true, username: undefined, password: undefined, ...more };
}

/** The repository as asked through a proxy; retries without waiting. */
function behind(proxy: FaultProxy, more: Partial<RegistryHost> = {}): Repository {
  return new Repository(proxy.host, REPOSITORY, {
    hosts: [host(proxy.host, more)],
    retryMs: 1,
    times: { answerMs: 5_000, stallMs: 300 },
  });
}

const isBlob = (path: string) => path.includes("/blobs/");

void test("a manifest is found by tag and by digest", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const byTag = await behind(proxy).manifest("1");
  assert.equal(byTag.descriptor.digest, image.manifest.digest);
  assert.equal(byTag.document.kind, "manifest");
  const byDigest = await behind(proxy).manifest(image.manifest.digest);
  assert.deepEqual(byDigest.bytes, byTag.bytes);
});

void test("a blob arrives whole", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest);
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(proxy.requests.length, 1);
});

void test("a cut connection is gone on with where it broke", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = ({ before }) => (before < 3 ? { kind: "cut", after: 100_000 } : { kind: "pass" });
  const sink = new MemorySink(layer.digest);
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(sink.resets, 0);
  const ranges = proxy.requests.map(({ headers }) => headers.range);
  assert.equal(ranges.length, 4);
  assert.equal(ranges[0], undefined);
  assert.ok(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? "")));
});

void test("many cuts do not end a download that gets on", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "cut", after: 80_000 });
  const sink = new MemorySink(layer.digest);
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.ok(proxy.requests.length > 10);
});

void test("a server that falls silent is asked again for the rest", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = ({ before }) => (before === 0 ? { kind: "stall", after: 50_000 } : { kind: "pass" });
  const sink = new MemorySink(layer.digest);
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(proxy.requests.length, 2);
});

void test("bytes of an earlier attempt are kept and only the rest is asked for", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest, bytes.subarray(0, 300_000));
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.deepEqual(
    proxy.requests.map(({ headers }) => headers.range),
    ["bytes=300000-"],
  );
});

void test("a blob that is there in full is committed without a request", async () => {
  await using proxy = await startFaultProxy(registry.host);
  await behind(proxy).download(layer, new MemorySink(layer.digest, bytes));
  assert.equal(proxy.requests.length, 0);
});

void test("wrong bytes of an earlier attempt are thrown away and fetched again", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest, Buffer.alloc(300_000, 7));
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(sink.resets, 1);
});

void test("a server without ranges is read past what is there", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = ({ before }) => (before === 0 ? { kind: "cut", after: 100_000 } : { kind: "ignore-range" });
  const sink = new MemorySink(layer.digest);
  await behind(proxy).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
});

void test("wrong bytes from the registry itself are data loss", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = ({ path }) => (isBlob(path) ? { kind: "corrupt" } : { kind: "pass" });
  await assert.rejects(behind(proxy).download(layer, new MemorySink(layer.digest)), (error) =>
    Fault.is(error, "data_loss"),
  );
  await assert.rejects(behind(proxy).document(image.config), (error) => Fault.is(error, "data_loss"));
});

void test("a manifest that does not have the digest it was asked by is refused", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "corrupt" });
  await assert.rejects(behind(proxy).manifest(image.manifest.digest), (error) =>
    Fault.is(error, "data_loss"),
  );
  // By tag, the registry's own header gives it away.
  await assert.rejects(behind(proxy).manifest("1"), (error) => Fault.is(error, "data_loss"));
});

void test("more bytes than announced are refused before they fill anything", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const small = { ...layer, size: 1000 };
  const sink = new MemorySink(layer.digest);
  await assert.rejects(behind(proxy).download(small, sink), (error) => Fault.is(error, "data_loss"));
  assert.ok(sink.offset <= 1000);
});

for (const status of [500, 502, 503, 429]) {
  void test(`status ${status} is tried again`, async () => {
    await using proxy = await startFaultProxy(registry.host);
    proxy.rule = ({ before }) => (before < 2 ? { kind: "answer", status } : { kind: "pass" });
    const sink = new MemorySink(layer.digest);
    await behind(proxy).download(layer, sink);
    assert.ok(sink.content.equals(bytes));
    assert.equal(proxy.requests.length, 3);
  });
}

void test("a registry that only fails is given up as unavailable", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "answer", status: 503, body: "<html>down</html>" });
  await assert.rejects(
    behind(proxy).manifest("1"),
    (error) =>
      Fault.is(error, "unavailable") && error.message.includes("503") && !error.message.includes("html"),
  );
  assert.equal(proxy.requests.length, 5);
});

void test("a registry that asks for a pause is left alone for it", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "answer", status: 429, headers: { "retry-after": "20" } });
  const controller = new AbortController();
  const asking = behind(proxy).manifest("1", controller.signal);
  setTimeout(() => {
    controller.abort();
  }, 150);
  // Without the pause all five attempts would be over by now.
  await assert.rejects(asking, (error) => Fault.is(error, "cancelled"));
  assert.equal(proxy.requests.length, 1);
});

void test("what is not there is not found, in the registry's words and without another try", async () => {
  await using proxy = await startFaultProxy(registry.host);
  await assert.rejects(
    behind(proxy).manifest("nope"),
    (error) => Fault.is(error, "not_found") && error.message.includes("manifest unknown"),
  );
  assert.equal(proxy.requests.length, 1);
});

void test("a port where nobody listens is unavailable", async () => {
  const proxy = await startFaultProxy(registry.host);
  await proxy[Symbol.asyncDispose]();
  await assert.rejects(
    behind(proxy).manifest("1"),
    (error) => Fault.is(error, "unavailable") && /ECONNREFUSED|ConnectionRefused/.test(error.message),
  );
});

void test("plain http is not spoken unless configured, and the error says what to set", async () => {
  await using proxy = await startFaultProxy(registry.host);
  await assert.rejects(
    behind(proxy, { insecure: false }).manifest("1"),
    (error) => Fault.is(error, "failed_precondition") && error.hint?.includes("insecure = true") === true,
  );
  assert.equal(proxy.requests.length, 0);
});

void test("credentials stay with the registry when it redirects to another host", async () => {
  await using basic = await startRegistry({ auth: "basic" });
  await using storage = await startFaultProxy(registry.host);
  await using proxy = await startFaultProxy(basic.host);
  proxy.rule = ({ path, headers }) =>
    isBlob(path) && headers.authorization !== undefined
      ? { kind: "redirect", to: `http://${storage.host}` }
      : { kind: "pass" };
  const repository = behind(proxy, {
    username: "tester",
    password: { reveal: () => "s3cret-password" },
  });
  const sink = new MemorySink(layer.digest);
  await repository.download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.ok(proxy.requests.some(({ headers }) => headers.authorization?.startsWith("Basic ") === true));
  assert.equal(storage.requests.length, 1);
  assert.equal(storage.requests[0]?.headers.authorization, undefined);
});

void test("endless redirects end", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "redirect", to: `http://${proxy.host}` });
  await assert.rejects(behind(proxy).manifest("1"), (error) => Fault.is(error, "failed_precondition"));
  assert.equal(proxy.requests.length, 6);
});

void test("mirrors are asked in their order, and the registry last", async () => {
  await using broken = await startFaultProxy(registry.host);
  broken.rule = () => ({ kind: "answer", status: 500 });
  await using lying = await startFaultProxy(registry.host);
  lying.rule = ({ path }) => (isBlob(path) ? { kind: "corrupt" } : { kind: "pass" });
  await using origin = await startFaultProxy(registry.host);
  const repository = behind(origin, { mirrors: [`http://${broken.host}`, `http://${lying.host}/`] });
  await repository.manifest("1");
  assert.equal(broken.requests.length, 2);
  assert.equal(lying.requests.length, 1);
  assert.equal(origin.requests.length, 0);
  const sink = new MemorySink(layer.digest);
  await repository.download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(broken.requests.length, 2, "a mirror that failed is not asked again");
  assert.equal(lying.requests.length, 2);
  assert.equal(origin.requests.length, 1);
});

void test("a download begun at a mirror is ended at the registry", async () => {
  await using mirror = await startFaultProxy(registry.host);
  mirror.rule = ({ before }) =>
    before === 0 ? { kind: "cut", after: 200_000 } : { kind: "answer", status: 500 };
  await using origin = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest);
  await behind(origin, { mirrors: [`http://${mirror.host}`] }).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(sink.resets, 0);
  assert.match(origin.requests[0]?.headers.range ?? "", /^bytes=[1-9]/);
});

void test("wrong bytes a mirror began with are not blamed on the registry that went on", async () => {
  await using mirror = await startFaultProxy(registry.host);
  mirror.rule = ({ before }) =>
    before === 0 ? { kind: "cut", after: 100_000, corrupt: true } : { kind: "answer", status: 500 };
  await using origin = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest);
  await behind(origin, { mirrors: [`http://${mirror.host}`] }).download(layer, sink);
  assert.ok(sink.content.equals(bytes));
  assert.equal(sink.resets, 1);
  assert.deepEqual(
    origin.requests.map(({ headers }) => headers.range !== undefined),
    [true, false],
  );
});

void test("a mirror below a path of its own is asked there", async () => {
  await using mirror = await startFaultProxy(registry.host);
  await using origin = await startFaultProxy(registry.host);
  mirror.rule = () => ({ kind: "answer", status: 404 });
  await behind(origin, { mirrors: [`http://${mirror.host}/v2/proxy`] }).manifest("1");
  assert.equal(mirror.requests[0]?.path, `/v2/proxy/${REPOSITORY}/manifests/1`);
});

void test("credentials of the registry are not sent to a mirror", async () => {
  await using mirror = await startFaultProxy(registry.host);
  mirror.rule = () => ({ kind: "answer", status: 401, headers: { "www-authenticate": "Basic realm=x" } });
  await using origin = await startFaultProxy(registry.host);
  const password = { reveal: () => "s3cret-password" };
  await behind(origin, { mirrors: [`http://${mirror.host}`], username: "tester", password }).manifest("1");
  assert.ok(mirror.requests.length > 0);
  assert.ok(mirror.requests.every(({ headers }) => headers.authorization === undefined));
});

void test("an error of the sink ends the download at once", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const sink = new MemorySink(layer.digest);
  sink.write = async () => {
    await Promise.resolve();
    throw new Fault("resource_exhausted", "the disk is full");
  };
  await assert.rejects(behind(proxy).download(layer, sink), (error) => Fault.is(error, "resource_exhausted"));
  assert.equal(proxy.requests.length, 1);
});

void test("a cancelled download ends with the caller's reason", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "stall", after: 1000 });
  const controller = new AbortController();
  const sink = new MemorySink(layer.digest);
  const write = sink.write.bind(sink);
  sink.write = async (chunk) => {
    await write(chunk);
    controller.abort(new Fault("cancelled", "enough"));
  };
  await assert.rejects(
    behind(proxy).download(layer, sink, controller.signal),
    (error) => Fault.is(error, "cancelled") && error.message === "enough",
  );
});

void test("Docker's first schema is refused by name", async () => {
  await using proxy = await startFaultProxy(registry.host);
  const body = JSON.stringify({ schemaVersion: 1, name: "x", fsLayers: [] });
  proxy.rule = () => ({ kind: "answer", status: 200, body });
  await assert.rejects(
    behind(proxy).manifest("1"),
    (error) => Fault.is(error, "unimplemented") && error.message.includes("schema version 1"),
  );
});

void test("a page of something else is no manifest", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "answer", status: 200, body: "<html>welcome</html>" });
  await assert.rejects(behind(proxy).manifest("1"), (error) => Fault.is(error, "failed_precondition"));
});

void test("a manifest of any size is not taken", async () => {
  await using proxy = await startFaultProxy(registry.host);
  proxy.rule = () => ({ kind: "answer", status: 200, body: Buffer.alloc(5 << 20, "a") });
  await assert.rejects(
    behind(proxy).manifest("1"),
    (error) => Fault.is(error, "failed_precondition") && error.message.includes("larger than"),
  );
});

void test("Docker's second schema is read like OCI's", async () => {
  const dir = await mkdtemp("/tmp/memoh-regtest-");
  await tinyImageArchive(join(dir, "a.tar"), { name: "localhost/bot:1" });
  await registry.push(join(dir, "a.tar"), `${REPOSITORY}:docker`, ["--format", "v2s2"]);
  await rm(dir, { recursive: true });
  await using proxy = await startFaultProxy(registry.host);
  const { document } = await behind(proxy).manifest("docker");
  assert.equal(document.mediaType, "application/vnd.docker.distribution.manifest.v2+json");
});
