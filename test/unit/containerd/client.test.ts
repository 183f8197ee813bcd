// The client against a daemon played by our own gRPC server: metadata, deadlines, errors of calls and streams.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ContainerdClient } from "../../../src/containerd/client.ts";
import { ContainerData } from "../../../src/containerd/container-data.ts";
import { Lease } from "../../../src/containerd/lease.ts";
import { Content } from "../../../src/gen/proto/containerd/content_pb.ts";
import { Leases } from "../../../src/gen/proto/containerd/leases_pb.ts";
import { Snapshots } from "../../../src/gen/proto/containerd/snapshots_pb.ts";
import { Version } from "../../../src/gen/proto/containerd/version_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { RpcServer } from "../../../src/rpc/server.ts";

interface Played extends AsyncDisposable {
  readonly server: RpcServer;
  readonly client: ContainerdClient;
}

async function played(timeoutMs = 5_000): Promise<Played> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "memoh-client-"));
  stack.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const socket = join(dir, "s");
  const server = stack.use(new RpcServer({ log: silentLogger() }));
  const client = stack.use(new ContainerdClient({ socket, namespace: "ns", timeoutMs }));
  const kept = stack.move();
  return { server, client, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

test("every call names the namespace, and the lease when there is one", async () => {
  await using play = await played();
  const seen: string[] = [];
  play.server.add(Version, {
    version: async (_, { metadata }) => {
      const [namespace, lease] = ["containerd-namespace", "containerd-lease"].map((key) => metadata.get(key));
      seen.push(`${namespace?.join()}/${lease?.join()}`);
      return await Promise.resolve({ version: "1" });
    },
  });
  await play.server.listen(`unix:${play.client.socket}`);
  await play.client.version.version({});
  await play.client.leased("l1").version.version({});
  assert.deepEqual(seen, ["ns/", "ns/l1"]);
});

test("a call without a time of its own ends by the default, a call that says none does not", async () => {
  await using play = await played(50);
  play.server.add(Version, {
    version: async () => {
      await sleep(200);
      return { version: "slow" };
    },
  });
  await play.server.listen(`unix:${play.client.socket}`);
  await assert.rejects(play.client.version.version({}), (error) => Fault.is(error, "deadline_exceeded"));
  assert.equal((await play.client.version.version({}, { timeoutMs: undefined })).version, "slow");
});

test("the caller's own reason wins over containerd's words", async () => {
  await using play = await played();
  play.server.add(Version, {
    version: async (_, { signal }) => {
      await sleep(5_000, signal);
      return {};
    },
  });
  await play.server.listen(`unix:${play.client.socket}`);
  const reason = new Fault("resource_exhausted", "enough");
  const controller = new AbortController();
  const call = play.client.version.version({}, { signal: controller.signal });
  setTimeout(() => {
    controller.abort(reason);
  }, 20);
  await assert.rejects(call, (error) => error === reason);
});

test("errors of streams are translated too, in both directions", async () => {
  await using play = await played();
  play.server.add(Content, {
    async *read() {
      yield { data: new Uint8Array([1]) };
      await Promise.reject(new Fault("unknown", "read: no space left on device: unknown"));
    },
    async *write(requests) {
      for await (const request of requests) {
        if (request.ref === "bad") throw new Fault("unavailable", "ref bad locked for 1s");
        yield {};
      }
    },
  });
  await play.server.listen(`unix:${play.client.socket}`);
  const got: number[] = [];
  await assert.rejects(
    async () => {
      for await (const { data } of play.client.content.read({ digest: "x" })) got.push(data.length);
    },
    (error) => Fault.is(error, "resource_exhausted"),
  );
  assert.deepEqual(got, [1]);
  await using stream = play.client.content.write();
  await stream.write({ ref: "bad" });
  await assert.rejects(
    async () => {
      for await (const _ of stream.responses) assert.fail("no reply was due");
    },
    (error) => Fault.is(error, "aborted"),
  );
  await assert.rejects(stream.write({ ref: "more" }), (error) => Fault.is(error, "aborted"));
});

test("a lease is deleted when it is disposed, also when the work under it failed", async () => {
  await using play = await played();
  const calls: string[] = [];
  play.server.add(Leases, {
    create: async ({ id, labels }) => {
      calls.push(`create ${id === "" ? "?" : "named"} ${Object.keys(labels).join()}`);
      return await Promise.resolve({ lease: { id } });
    },
    delete: async ({ id }) => {
      calls.push(`delete ${id.startsWith("memoh-x-")}`);
      return await Promise.resolve({});
    },
  });
  await play.server.listen(`unix:${play.client.socket}`);
  await assert.rejects(async () => {
    await using _ = await Lease.create(play.client, "x");
    throw new Fault("internal", "work failed");
  }, /work failed/);
  assert.deepEqual(calls, ["create named containerd.io/gc.expire", "delete true"]);
});

test("a snapshot deeper than overlayfs takes is refused before a task is made of it", async () => {
  await using play = await played();
  let layers = 500;
  play.server.add(Snapshots, {
    mounts: async () =>
      await Promise.resolve({
        mounts: [
          {
            type: "overlay",
            options: [
              "upperdir=/u",
              `lowerdir=${Array.from({ length: layers }, (_, i) => `/l${i}`).join(":")}`,
            ],
          },
        ],
      }),
  });
  await play.server.listen(`unix:${play.client.socket}`);
  const data = new ContainerData(play.client, "overlayfs");
  assert.equal((await data.mounts("overlayfs", "k")).length, 1);
  layers = 501;
  await assert.rejects(data.mounts("overlayfs", "k"), (error) => {
    assert.ok(Fault.is(error, "failed_precondition"));
    assert.match(error.hint ?? "", /Flatten/);
    return true;
  });
});
