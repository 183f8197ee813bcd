// Import and pull in processes of their own: under both JavaScript runtimes, and killed in the middle.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import type { ContainerdClient } from "../../../src/containerd/client.ts";
import { ContainerdImages } from "../../../src/containerd/images/image-store.ts";
import { mustRun } from "../../../src/lib/command.ts";
import { chainIds } from "../../../src/oci/chain-id.ts";
import { startContainerd, type TestContainerd } from "../../support/containerd.ts";
import {
  collectGarbage,
  contentOf,
  ingestsOf,
  leasesOf,
  snapshotsOf,
} from "../../support/containerd-state.ts";
import { startFaultProxy, startRegistry } from "../../support/registry.ts";
import { tinyImage, tinyImageArchive } from "../../support/tiny-image.ts";

const NODE = process.execPath;
const BUN = join(import.meta.dirname, "../../../node_modules/@oven/bun-linux-x64/bin/bun");
const SCRIPT = join(import.meta.dirname, "../../support/images-as-child.ts");
const cleanup = new AsyncDisposableStack();
let daemon: TestContainerd;
let serial = 0;

before(async () => {
  daemon = cleanup.use(await startContainerd());
});

after(async () => {
  await cleanup.disposeAsync();
});

interface Outcome {
  readonly runtime?: string;
  readonly digest?: string;
  readonly code?: string;
  readonly message?: string;
}

function place(): ContainerdClient {
  return daemon.client(`${daemon.namespace}-${serial++}`);
}

async function child(
  client: ContainerdClient,
  runtime: string,
  verb: string,
  target: string,
): Promise<Outcome> {
  const argv = [runtime, SCRIPT, daemon.socket, client.namespace, verb, target];
  return JSON.parse((await mustRun(argv)).stdout) as Outcome;
}

void test("under Bun a big archive is imported without a stall", async () => {
  await using client = place();
  const archive = join(daemon.dir, "big.tar");
  const layers = [{ "/big": randomBytes(48_000_000) }];
  const image = await tinyImageArchive(archive, { name: "localhost/big:1", compression: "none", layers });
  const { runtime, digest } = await child(client, BUN, "import", archive);
  assert.equal(runtime, "bun");
  assert.equal(digest, image.manifest.digest);
  assert.equal((await contentOf(client)).length, image.blobs.size);
});

void test("under Bun an image is pulled over cut connections", async () => {
  await using client = place();
  await using registry = await startRegistry();
  await using proxy = await startFaultProxy(registry.host);
  const image = await tinyImage({ name: "x", layers: [{ "/big": randomBytes(6_000_000) }] });
  await registry.put(image, "team/x:1");
  proxy.rule = ({ path, before: earlier }) =>
    path.includes("/blobs/") && earlier === 0 ? { kind: "cut", after: 2_000_000 } : { kind: "pass" };
  const { digest } = await child(client, BUN, "pull-insecure", `${proxy.host}/team/x:1`);
  assert.equal(digest, image.manifest.digest);
  assert.ok(proxy.requests.some(({ headers }) => headers.range !== undefined));
});

void test("a registry signed by a CA of the machine is trusted, another one is not", async () => {
  await using registry = await startRegistry({ tls: true });
  const archive = join(daemon.dir, "tls.tar");
  const image = await tinyImageArchive(archive, { name: "localhost/x:1" });
  await registry.push(archive, "team/x:1", ["--preserve-digests"]);
  const store = "/etc/ssl/certs/ca-certificates.crt";
  const bundle = join(daemon.dir, "bundle.crt");
  await writeFile(bundle, `${await readFile(store, "utf8")}\n${await readFile(registry.caFile, "utf8")}`);
  // The machine's store is replaced for the child alone, in a mount namespace of its own.
  const trusting = `mount --bind ${bundle} ${store} && exec "$0" "$@"`;
  for (const runtime of [NODE, BUN]) {
    await using client = place();
    const ref = `${registry.host}/team/x:1`;
    const { code, message } = await child(client, runtime, "pull", ref);
    assert.equal(code, "failed_precondition");
    assert.match(message ?? "", /the certificate of localhost:\d+ is not trusted/);
    const argv = [runtime, SCRIPT, daemon.socket, client.namespace, "pull", ref];
    const { stdout } = await mustRun(["unshare", "-m", "sh", "-c", trusting, ...argv]);
    assert.equal((JSON.parse(stdout) as Outcome).digest, image.manifest.digest);
  }
});

void test("an import killed in the middle names nothing and does not harm the next one", async () => {
  await using client = place();
  const archive = join(daemon.dir, "killed.tar");
  const layers = [{ "/big": randomBytes(16_000_000) }];
  const image = await tinyImageArchive(archive, { name: "localhost/killed:1", compression: "none", layers });
  const images = new ContainerdImages(client, { registry: { hosts: [] } });
  for (const moment of ["layer", "unpack"]) {
    const killed = spawn(NODE, [SCRIPT, daemon.socket, client.namespace, "import", archive], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const ended = once(killed, "exit");
    for await (const line of createInterface(killed.stderr)) {
      if (line !== moment) continue;
      killed.kill("SIGKILL");
      break;
    }
    await ended;
    assert.equal(killed.signalCode, "SIGKILL");
    assert.deepEqual(await images.list(), []);
  }
  await images.import(archive);
  // The leases of the dead end by themselves later; here they are ended by hand.
  for (const id of await leasesOf(client)) await client.leases.delete({ id });
  await collectGarbage(client);
  assert.deepEqual(await ingestsOf(client), []);
  assert.deepEqual((await contentOf(client)).sort(), [...image.blobs.keys()].sort());
  assert.deepEqual((await snapshotsOf(client)).sort(), chainIds(image.diffIds).sort());
});
