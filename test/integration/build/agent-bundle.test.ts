// The agent bundle: made whole, kept apart per build, and enough to run in a root file system that has nothing.
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, existsSync, mkdirSync, symlinkSync, truncateSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ContainerService } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { agentBundles, ensureAgentBundle } from "../../../src/host/agent-bundle.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { builtExecutable } from "../../support/executables.ts";
import { emptyRoot, inRoot } from "../../support/rootfs.ts";

const log = silentLogger();
let data: string;

before(async () => {
  data = await mkdtemp(join(tmpdir(), "memoh-bundle-"));
});
after(async () => {
  await rm(data, { recursive: true, force: true });
});

const bun = { executable: builtExecutable("bun") };
const node = { executable: builtExecutable("node") };

test("a bundle has the executable, an init, the loader and the libraries, all to be run by anybody", async () => {
  const bundle = await ensureAgentBundle(data, log, bun);
  const names = (await readdir(bundle.dir, { recursive: true })).toSorted();
  for (const name of ["memoh", "tini", "lib/libc.so.6"]) assert.ok(names.includes(name), name);
  assert.equal(names.filter((name) => name.startsWith("ld-linux-")).length, 1);
  for (const name of names) assert.equal((await stat(join(bundle.dir, name))).mode & 0o777, 0o755, name);
  assert.deepEqual(await readFile(join(bundle.dir, "memoh")), await readFile(bun.executable));
  assert.deepEqual(bundle.mount, { source: bundle.dir, target: "/opt/memoh" });
  assert.equal(bundle.args.at(-1), "agent");
});

test("the same build is the same directory, untouched; another build is another one beside it", async () => {
  const fresh = await mkdtemp(join(data, "builds-"));
  const first = await ensureAgentBundle(fresh, log, bun);
  const inode = (await stat(join(first.dir, "memoh"))).ino;
  const again = await ensureAgentBundle(fresh, log, bun);
  assert.equal(again.dir, first.dir);
  assert.equal((await stat(join(again.dir, "memoh"))).ino, inode);
  const other = await ensureAgentBundle(fresh, log, node);
  assert.notEqual(other.hash, first.hash);
  assert.deepEqual(await agentBundles(fresh), [first.hash, other.hash].toSorted());
});

test("a bundle that lost bytes or a mode is made again", async () => {
  const bundle = await ensureAgentBundle(data, log, bun);
  truncateSync(join(bundle.dir, "memoh"), 1000);
  await ensureAgentBundle(data, log, bun);
  assert.equal((await stat(join(bundle.dir, "memoh"))).size, (await stat(bun.executable)).size);
  chmodSync(join(bundle.dir, "tini"), 0o600);
  await ensureAgentBundle(data, log, bun);
  assert.equal((await stat(join(bundle.dir, "tini"))).mode & 0o777, 0o755);
});

test("hosts that make it at the same time make one, and leave nothing else", async () => {
  const fresh = await mkdtemp(join(data, "race-"));
  const all = await Promise.all([1, 2].map(() => ensureAgentBundle(fresh, log, bun)));
  assert.equal(new Set(all.map((bundle) => bundle.dir)).size, 1);
  assert.deepEqual(await readdir(join(fresh, "agent")), [all[0]?.hash]);
});

test("an attempt that is given up, or cannot be written, leaves no half bundle", async () => {
  const fresh = await mkdtemp(join(data, "abort-"));
  await assert.rejects(ensureAgentBundle(fresh, log, { ...bun, signal: AbortSignal.abort() }), (error) =>
    Fault.is(error, "cancelled"),
  );
  assert.deepEqual(await agentBundles(fresh), []);
  // A full disk: a file system of 1 MiB under the data directory.
  const small = await mkdtemp(join(data, "full-"));
  assert.equal(spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small]).status, 0);
  try {
    await assert.rejects(ensureAgentBundle(small, log, bun), (error) =>
      Fault.is(error, "resource_exhausted"),
    );
    assert.deepEqual(await readdir(join(small, "agent")), []);
  } finally {
    spawnSync("umount", [small]);
  }
});

test("an executable that is no program is refused with its name", async () => {
  await assert.rejects(
    ensureAgentBundle(data, log, { executable: "/etc/hostname" }),
    (error) => error instanceof Fault && error.message.includes("/etc/hostname"),
  );
});

for (const [runtime, options] of [
  ["bun", bun],
  ["node", node],
] as const) {
  describe(`the bundle of the ${runtime} build`, () => {
    test("runs in a root file system with nothing but /proc and itself", async (t) => {
      const root = emptyRoot(t);
      const bundle = await ensureAgentBundle(data, log, options);
      const argv = [...bundle.args.slice(0, -1), "--version"];
      const done = spawnSync(...inRoot(root, bundle.dir, argv), { encoding: "utf8", timeout: 30_000 });
      assert.deepEqual([done.status, done.stderr], [0, ""]);
      assert.match(done.stdout, new RegExp(`^memoh \\S+ \\(commit \\S+, ${runtime} `));
    });

    test("serves files and commands in a root file system that has only busybox", async (t) => {
      const root = emptyRoot(t);
      mkdirSync(join(root, "bin"));
      copyFileSync("/bin/busybox", join(root, "bin", "busybox"));
      symlinkSync("busybox", join(root, "bin", "sh"));
      mkdirSync(join(root, "dev"));
      assert.equal(spawnSync("mknod", ["-m", "666", join(root, "dev", "null"), "c", "1", "3"]).status, 0);
      const bundle = await ensureAgentBundle(data, log, options);
      const agent = spawn(
        ...inRoot(root, bundle.dir, [...bundle.args, "--insecure", "--listen", "unix:/run/agent.sock"]),
        { stdio: ["ignore", "pipe", "pipe"] },
      );
      const said = collect(agent);
      t.after(async () => {
        agent.kill("SIGKILL");
        if (agent.exitCode === null && agent.signalCode === null) await once(agent, "exit");
      });
      using channel = new RpcChannel({ target: `unix:${join(root, "run", "agent.sock")}` });
      await channel.ready(20_000).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${said()}`);
      });
      const client = channel.client(ContainerService, { timeoutMs: 20_000 });
      const hello = await client.hello({});
      assert.match(hello.runtime, new RegExp(`^${runtime} `));
      await client.writeFile({ path: "/data/a", content: Buffer.from("abc\n") });
      await using run = client.exec();
      await run.write({ command: "sh -c 'cat /data/a; echo $$' ", workDir: "/data" });
      run.end();
      let output = "";
      let exit: number | undefined;
      for await (const event of run.responses) {
        output += Buffer.from(event.data).toString();
        if (event.exitCode !== 0 || event.stream === 2) exit = event.exitCode;
      }
      assert.match(output, /^abc\n\d+\n$/);
      assert.equal(exit, 0);
    });
  });
}

function collect(child: ChildProcess): () => string {
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  return () => text;
}

assert.ok(existsSync("/bin/busybox"), "busybox-static is not installed");
