// A containerd of a test's own: own root, state and socket in a temp dir, gone with all it ran when disposed.
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, openSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ContainerdClient } from "../../src/containerd/client.ts";
import { mustRun, SYSTEM_PATH } from "../../src/lib/command.ts";
import { sleep } from "../../src/lib/signal.ts";
import { type ContainerdVersion, containerdBin } from "./containerd-debs.ts";

/** A daemon a test started. Use with `await using`. */
export interface TestContainerd extends AsyncDisposable {
  readonly socket: string;
  /** Temp dir of everything; `root` and `state` are in it. Removed at the end. */
  readonly dir: string;
  /**
   * A containerd namespace no other test uses; also a good name for a cgroup parent. Others that start with it and a
   * dash are the test's own too.
   */
  readonly namespace: string;
  /** Pid of the running daemon, 0 after kill(). */
  readonly pid: number;
  /** A new client; the caller disposes it. In the daemon's own test namespace unless another is named. */
  client(namespace?: string): ContainerdClient;
  /** Ends the daemon at once (SIGKILL) and waits for its end. What it runs goes on. */
  kill(): Promise<void>;
  /** Starts it again after kill(). */
  restart(): Promise<void>;
  /** Its log so far. */
  log(): Promise<string>;
}

const DISABLED = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
];

/** Starts a containerd and waits until its socket answers. Safe to run in parallel with others. */
export async function startContainerd(
  options: { readonly version?: ContainerdVersion; readonly root?: string } = {},
): Promise<TestContainerd> {
  const bin = await containerdBin(options.version ?? "installed");
  // Sockets have a length limit of 107 bytes, so the directory stays short.
  const dir = await mkdtemp("/tmp/memoh-ctrd-");
  const namespace = `memoh-test-${randomBytes(5).toString("hex")}`;
  const socket = join(dir, "c.sock");
  await writeFile(
    join(dir, "config.toml"),
    [
      `version = ${options.version === "2" ? 3 : 2}`,
      `root = "${options.root ?? join(dir, "root")}"`,
      `state = "${join(dir, "state")}"`,
      `disabled_plugins = ${JSON.stringify(DISABLED)}`,
      "[grpc]",
      `  address = "${socket}"`,
      "[ttrpc]",
      `  address = "${socket}.ttrpc"`,
      "[debug]",
      '  level = "info"',
      "",
    ].join("\n"),
  );
  let daemon: ChildProcess | undefined;

  const start = async () => {
    const log = openSync(join(dir, "log"), "a");
    // The parent's death is the daemon's, so that a test that is killed leaves no daemon.
    const child = spawn(
      "setpriv",
      ["--pdeathsig", "KILL", "containerd", "--config", join(dir, "config.toml")],
      {
        env: { PATH: bin === undefined ? SYSTEM_PATH : `${bin}:${SYSTEM_PATH}` },
        stdio: ["ignore", log, log],
      },
    );
    daemon = child;
    await using client = new ContainerdClient({ socket, namespace });
    for (const until = Date.now() + 30_000; ; await sleep(10)) {
      if (existsSync(socket) && (await answers(client))) return;
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > until) {
        throw new Error(`containerd did not start: ${await readFile(join(dir, "log"), "utf8")}`);
      }
    }
  };
  const end = async (signal: NodeJS.Signals) => {
    const child = daemon;
    daemon = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  };
  const running: TestContainerd = {
    socket,
    dir,
    namespace,
    get pid() {
      return daemon?.pid ?? 0;
    },
    client: (other = namespace) => new ContainerdClient({ socket, namespace: other }),
    kill: async () => {
      await end("SIGKILL");
    },
    restart: start,
    log: async () => await readFile(join(dir, "log"), "utf8"),
    [Symbol.asyncDispose]: async () => {
      await end("SIGKILL");
      await endShims(socket);
      await removeDeadShimSockets();
      await unmountBelow(dir);
      await removeCgroups(namespace);
      await removeRuncState(namespace);
      await rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
  try {
    await start();
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
  return running;
}

async function answers(client: ContainerdClient): Promise<boolean> {
  try {
    await client.version.version({}, { timeoutMs: 2_000, waitForReady: true });
    return true;
  } catch {
    return false;
  }
}

/** Pids of the shims that serve a daemon, with their container ids. */
export async function shimsOf(socket: string): Promise<{ pid: number; containerId: string }[]> {
  const shims: { pid: number; containerId: string }[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const argv = (await readText(`/proc/${name}/cmdline`)).split("\0");
    if (!(argv[0] ?? "").includes("containerd-shim")) continue;
    if (argv[argv.indexOf("-address") + 1] !== socket || argv.includes("start") || argv.includes("delete"))
      continue;
    shims.push({ pid: Number(name), containerId: argv[argv.indexOf("-id") + 1] ?? "" });
  }
  return shims;
}

/** Kills what still runs under the daemon: each shim's children (a container dies with its init), then the shim. */
async function endShims(socket: string): Promise<void> {
  for (const { pid } of await shimsOf(socket)) {
    const children = (await readText(`/proc/${pid}/task/${pid}/children`))
      .trim()
      .split(/\s+/)
      .filter(Boolean);
    for (const target of [...children.map(Number), pid]) {
      try {
        process.kill(target, "SIGKILL");
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
      }
    }
  }
}

/**
 * Shims keep their sockets in a directory shared by all daemons, and one that was killed leaves its own there. Looked
 * at in this order, a file without a listener is of a shim that is gone.
 */
async function removeDeadShimSockets(): Promise<void> {
  const directory = "/run/containerd/s";
  const names = existsSync(directory) ? await readdir(directory) : [];
  const listening = await readFile("/proc/net/unix", "utf8");
  for (const name of names) {
    if (!listening.includes(join(directory, name))) await rm(join(directory, name), { force: true });
  }
}

async function unmountBelow(dir: string): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const points = (await readFile("/proc/self/mountinfo", "utf8"))
      .split("\n")
      .map((line) => line.split(" ")[4] ?? "")
      .filter((point) => point.startsWith(`${dir}/`));
    if (points.length === 0) return;
    await mustRun(["umount", "-l", ...points.reverse()]).catch(() => undefined);
  }
}

/** Removes the cgroups of the namespace and those derived from it, in every hierarchy; killed shims leave theirs. */
async function removeCgroups(namespace: string): Promise<void> {
  const root = "/sys/fs/cgroup";
  for (const hierarchy of [root, ...(await readdir(root)).map((entry) => join(root, entry))]) {
    for (const name of await readdir(hierarchy).catch(() => [])) {
      if (isOf(namespace, name)) await removeCgroup(join(hierarchy, name));
    }
  }
}

/** runc keeps its state by namespace in a directory shared by all daemons. */
async function removeRuncState(namespace: string): Promise<void> {
  const directory = "/run/containerd/runc";
  for (const name of existsSync(directory) ? await readdir(directory) : []) {
    if (isOf(namespace, name)) await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Tests may take more namespaces by a suffix: `<namespace>-2`. */
function isOf(namespace: string, name: string): boolean {
  return name === namespace || name.startsWith(`${namespace}-`);
}

async function removeCgroup(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeCgroup(join(directory, entry.name));
  }
  // Killed processes leave their cgroup a moment after their death.
  for (let round = 0; round < 50; round++) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EBUSY")) return;
      await sleep(20);
    }
  }
}

async function readText(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
