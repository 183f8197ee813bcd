// A runtime on a daemon, an image and a network namespace of a test's own.
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ContainerdClient } from "../../../src/containerd/client.ts";
import { ContainerdRuntime } from "../../../src/containerd/runtime.ts";
import { containerIdOf } from "../../../src/core/bot-id.ts";
import type { ContainerDescription, ImageStore } from "../../../src/core/runtime.ts";
import { mustRun, runCommand } from "../../../src/lib/command.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { chainIds } from "../../../src/oci/chain-id.ts";
import { startContainerd, type TestContainerd } from "../../support/containerd.ts";
import type { ContainerdVersion } from "../../support/containerd-debs.ts";
import { tinyImage } from "../../support/tiny-image.ts";

const END = ":end:";
const IMAGE = "localhost/tiny:1";

export interface World extends AsyncDisposable {
  readonly daemon: TestContainerd;
  readonly client: ContainerdClient;
  readonly runtime: ContainerdRuntime;
  /** Another runtime on the same daemon: another host. */
  newRuntime(options?: { readonly runtimeBinary?: string }): ContainerdRuntime;
  /** Parent of fresh snapshots. */
  readonly parent: string;
  /** The description of a new bot's container; sleeps, and ends at TERM. */
  describe(changes?: Partial<ContainerDescription>): ContainerDescription;
  /** Runs a shell line in a running container. @returns what it printed */
  inside(containerId: string, line: string): Promise<string>;
}

/** Ends at once on TERM: a shell that is PID 1 ignores it unless told. */
export const SLEEP = ["/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done"];

export async function startWorld(options: { readonly version?: ContainerdVersion } = {}): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const daemon = stack.use(await startContainerd(options));
  const client = stack.use(daemon.client());
  const netns = `memoh-t-${randomBytes(4).toString("hex")}`;
  await mustRun(["ip", "netns", "add", netns]);
  stack.defer(async () => {
    await runCommand(["ip", "netns", "del", netns]);
  });
  const image = await tinyImage({ name: IMAGE, compression: "none" });
  const parent = chainIds(image.diffIds).at(-1) ?? "";
  const images = tinyStore(client, daemon.dir, parent, image.diffIds, [...image.blobs.values()]);
  const newRuntime = (more: { readonly runtimeBinary?: string } = {}) =>
    new ContainerdRuntime({
      client,
      images,
      log: silentLogger(),
      cgroupParent: daemon.namespace,
      daemonPid: () => Promise.resolve(daemon.pid === 0 ? undefined : daemon.pid),
      ...more,
    });
  const kept = stack.move();
  return {
    daemon,
    client,
    runtime: newRuntime(),
    newRuntime,
    parent,
    describe: (changes = {}) => {
      const botId = randomUUID();
      return {
        id: containerIdOf(botId),
        botId,
        image: IMAGE,
        hostname: "bot",
        netnsPath: `/run/netns/${netns}`,
        limits: { memory: 64 << 20, pids: 64, cpus: 1 },
        mounts: [],
        args: SLEEP,
        env: { PATH: "/bin" },
        ...changes,
      };
    },
    inside: async (containerId, line) => {
      const path = join(daemon.dir, `out-${randomUUID()}`);
      await writeFile(path, "");
      const execId = randomUUID().slice(0, 8);
      const spec = {
        args: ["/bin/sh", "-c", `(eval "$0") 2>&1; printf '${END}'`, line],
        env: ["PATH=/bin"],
        cwd: "/",
        ...(await processOf(client, containerId)),
      };
      await client.tasks.exec({
        containerId,
        execId,
        stdout: `file://${path}`,
        stderr: `file://${path}`,
        spec: {
          typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process",
          value: new TextEncoder().encode(JSON.stringify(spec)),
        },
      });
      const wait = client.tasks.wait({ containerId, execId });
      await client.tasks.start({ containerId, execId });
      await wait;
      await client.tasks.deleteProcess({ containerId, execId });
      // The shim copies on for a moment after the end.
      for (const until = Date.now() + 10_000; ; await sleep(5)) {
        const text = await readFile(path, "utf8");
        if (text.endsWith(END)) return text.slice(0, -END.length);
        if (Date.now() > until) throw new Error(`the output was cut: ${JSON.stringify(text)}`);
      }
    },
    [Symbol.asyncDispose]: async () => {
      await kept.disposeAsync();
    },
  };
}

/** The security settings of the container itself, so that what an exec sees is what its init sees. */
async function processOf(client: ContainerdClient, containerId: string): Promise<object> {
  const { container } = await client.containers.get({ id: containerId });
  const spec = JSON.parse(new TextDecoder().decode(container?.spec?.value)) as {
    process: { user: object; capabilities: object; noNewPrivileges: boolean; rlimits: object };
  };
  const { user, capabilities, noNewPrivileges, rlimits } = spec.process;
  return { user, capabilities, noNewPrivileges, rlimits };
}

/** The tiny image unpacked by hand: just what ensureContainer asks of a store. */
function tinyStore(
  client: ContainerdClient,
  dir: string,
  parent: string,
  diffIds: readonly string[],
  blobs: readonly Buffer[],
): ImageStore {
  const no = (): never => {
    throw new Fault("unimplemented", "not in this store");
  };
  return {
    list: no,
    get: no,
    import: no,
    pull: no,
    remove: no,
    config: async (ref) => {
      if (ref !== IMAGE) throw new Fault("not_found", `Cannot find the image ${ref}`);
      return await Promise.resolve({ env: [], workingDir: "", user: "", diffIds });
    },
    unpack: async () => {
      const snapshotter = "overlayfs";
      const key = `unpack-${randomUUID()}`;
      const labels = { "containerd.io/gc.root": "1" };
      const { mounts } = await client.snapshots.prepare({ snapshotter, key, labels });
      const target = join(dir, key);
      const tar = `${target}.tar`;
      await mkdir(target);
      await writeFile(tar, blobs.find((blob) => blob.includes("bin/busybox")) ?? no());
      const mount = mounts[0] ?? no();
      await mustRun(["mount", "-t", mount.type, "-o", mount.options.join(","), mount.source, target]);
      await mustRun(["tar", "-xf", tar, "-C", target]);
      await mustRun(["umount", target]);
      await client.snapshots.commit({ snapshotter, key, name: parent, labels });
    },
  };
}
