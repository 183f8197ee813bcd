// The client against real daemons of every version we support.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Lease } from "../../../src/containerd/lease.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { startContainerd } from "../../support/containerd.ts";
import type { ContainerdVersion } from "../../support/containerd-debs.ts";

const VERSIONS: readonly [ContainerdVersion, RegExp][] = [
  ["installed", /^v?(1\.[67]|2)\./],
  ["1.7", /^v?1\.7\./],
  ["2", /^v?2\./],
];

for (const [version, expected] of VERSIONS) {
  void test(`containerd ${version} answers, keeps its identity over a restart and takes a lease`, async () => {
    await using daemon = await startContainerd({ version });
    await using client = daemon.client();
    const answer = await client.version.version({});
    assert.match(answer.version, expected);
    const { uuid } = await client.introspection.server({});
    assert.match(uuid, /^[0-9a-f-]{36}$/);
    {
      await using lease = await Lease.create(client, "test");
      const { leases } = await client.leases.list({});
      assert.deepEqual(
        leases.map((l) => l.id),
        [lease.id],
      );
      assert.ok(Date.parse(leases[0]?.labels["containerd.io/gc.expire"] ?? "") > Date.now());
    }
    assert.deepEqual((await client.leases.list({})).leases, []);
    await daemon.kill();
    await assert.rejects(client.version.version({}), (error) => Fault.is(error, "unavailable"));
    await daemon.restart();
    assert.equal((await client.introspection.server({}, { waitForReady: true })).uuid, uuid);
  });
}
