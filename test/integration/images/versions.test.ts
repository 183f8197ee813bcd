// Import, pull and unpack on every version of containerd we support.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { ContainerdImages } from "../../../src/containerd/images/image-store.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { chainIds } from "../../../src/oci/chain-id.ts";
import { startContainerd } from "../../support/containerd.ts";
import type { ContainerdVersion } from "../../support/containerd-debs.ts";
import {
  collectGarbage,
  contentOf,
  ingestsOf,
  leasesOf,
  snapshotsOf,
} from "../../support/containerd-state.ts";
import { startFaultProxy, startRegistry } from "../../support/registry.ts";
import { tinyImage, tinyImageArchive } from "../../support/tiny-image.ts";

const VERSIONS: readonly ContainerdVersion[] = ["installed", "1.7", "2"];

for (const version of VERSIONS) {
  void test(`containerd ${version}: images are imported, pulled, unpacked, refused and removed`, async () => {
    await using daemon = await startContainerd({ version });
    await using registry = await startRegistry();
    await using proxy = await startFaultProxy(registry.host);
    await using client = daemon.client();
    const host = { host: proxy.host, mirrors: [], insecure: true, username: undefined, password: undefined };
    const images = new ContainerdImages(client, { registry: { hosts: [host], retryMs: 1 } });

    const archive = join(daemon.dir, "a.tar");
    const layers = [{ "/etc/a": "1" }, { "/etc/b": "2" }];
    const imported = await tinyImageArchive(archive, { name: "localhost/a:1", compression: "zstd", layers });
    await images.import(archive);
    assert.deepEqual((await snapshotsOf(client)).sort(), chainIds(imported.diffIds).sort());

    const pulled = await tinyImage({ name: "x", layers: [{ "/big": randomBytes(2_000_000) }] });
    await registry.put(pulled, "team/b:1");
    proxy.rule = ({ path, before }) =>
      path.includes("/blobs/") && before === 0 ? { kind: "cut", after: 800_000 } : { kind: "pass" };
    const info = await images.pull(`${proxy.host}/team/b:1`);
    assert.equal(info.digest, pulled.manifest.digest);

    const corrupt = await tinyImage({ name: "x", layers: [{ "/c": randomBytes(1000) }] });
    await registry.put(corrupt, "team/c:1");
    const bad = corrupt.layers[1]?.digest ?? "";
    proxy.rule = ({ path }) => (path.includes(bad) ? { kind: "corrupt" } : { kind: "pass" });
    await assert.rejects(images.pull(`${proxy.host}/team/c:1`), (error) => Fault.is(error, "data_loss"));
    await assert.rejects(images.pull(`${proxy.host}/team/d:1`), (error) => Fault.is(error, "not_found"));

    assert.deepEqual(
      (await images.list()).map(({ name }) => name),
      [`${proxy.host}/team/b:1`, "localhost/a:1"],
    );
    assert.deepEqual(await ingestsOf(client), []);
    assert.deepEqual(await leasesOf(client), []);
    await collectGarbage(client);
    const kept = new Set([...imported.blobs.keys(), ...pulled.blobs.keys()]);
    assert.deepEqual((await contentOf(client)).sort(), [...kept].sort());

    const snapshots = (await snapshotsOf(client)).length;
    for (const key of chainIds(pulled.diffIds).reverse()) {
      await client.snapshots.remove({ snapshotter: "overlayfs", key }).catch((error: unknown) => {
        // The lowest layer has another image's on top.
        if (!Fault.is(error, "failed_precondition")) throw error;
      });
    }
    await images.unpack(info.name);
    assert.equal((await snapshotsOf(client)).length, snapshots);

    assert.equal(await images.remove(info.name), true);
    assert.equal(await images.remove("localhost/a:1"), true);
    assert.deepEqual(await contentOf(client), []);
    assert.deepEqual(await snapshotsOf(client), []);
  });
}
