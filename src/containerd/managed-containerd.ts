// memoh's own containerd: found on the machine, started with its own root and state, adopted again after the host went.
import { access, mkdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { runCommand, SYSTEM_PATH } from "../lib/command.ts";
import { type ProcessIdentity, readPidFile, removePidFile, startDaemon, stopProcess } from "../lib/daemon.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { abortable, sleep } from "../lib/signal.ts";

/** Where memoh's own containerd lives. */
export interface ManagedContainerdOptions {
  /** Durable state: `<data>/containerd`. */
  readonly rootDir: string;
  /** Run-time state, sockets and shims: `<run>/containerd`. */
  readonly stateDir: string;
  readonly log: Logger;
}

const START_MS = 20_000;

/** Plugins bots never need, by the names of both config versions. They cost start-up time and open doors. */
const DISABLED = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
];

/** A containerd daemon of memoh's own. It is detached: it and its containers outlive the host. */
export class ManagedContainerd {
  readonly socketPath: string;
  readonly #pidFile: string;
  readonly #configFile: string;
  readonly #options: ManagedContainerdOptions;

  constructor(options: ManagedContainerdOptions) {
    this.#options = options;
    this.socketPath = join(options.stateDir, "containerd.sock");
    this.#pidFile = join(options.stateDir, "containerd.pid");
    this.#configFile = join(options.stateDir, "containerd.toml");
  }

  /** Starts the daemon, or finds the running one. Idempotent; called again whenever the socket does not answer. */
  async ensure(signal?: AbortSignal): Promise<void> {
    const running = await this.#running();
    if (running !== undefined && (await answers(this.socketPath))) return;
    await mkdir(this.#options.rootDir, { recursive: true, mode: 0o711 });
    await mkdir(this.#options.stateDir, { recursive: true, mode: 0o711 });
    let daemon = running;
    if (daemon === undefined) {
      const program = await findContainerd();
      await writeFileAtomic(this.#configFile, this.#config(await configVersion(program)), 0o644);
      await rm(this.socketPath, { force: true });
      daemon = await startDaemon({
        argv: [program, "--config", this.#configFile],
        pidFile: this.#pidFile,
        logFile: this.logFile,
      });
      this.#options.log.info({ pid: daemon.pid, socket: this.socketPath }, "started containerd");
    }
    const until = Date.now() + START_MS;
    while (!(await answers(this.socketPath))) {
      if ((await this.#running()) === undefined) {
        throw new Fault("unavailable", `Cannot start containerd: ${await lastWords(this.logFile)}`, {
          hint: `Read ${this.logFile}`,
        });
      }
      if (Date.now() > until) {
        throw new Fault("deadline_exceeded", `containerd did not answer within ${START_MS / 1000} s`, {
          hint: `Read ${this.logFile}`,
        });
      }
      await sleep(10, signal);
    }
  }

  get logFile(): string {
    return join(this.#options.rootDir, "containerd.log");
  }

  /** The running daemon's process, if any. */
  async pid(): Promise<number | undefined> {
    return (await this.#running())?.pid;
  }

  /** Ends the daemon. Containers go on without it; stop them first. */
  async stop(): Promise<void> {
    const running = await this.#running();
    if (running !== undefined) await stopProcess(running, 10_000);
    await removePidFile(this.#pidFile);
  }

  async #running(): Promise<ProcessIdentity | undefined> {
    const identity = await readPidFile(this.#pidFile);
    if (identity === undefined) return undefined;
    const command = await readFile(`/proc/${identity.pid}/cmdline`, "utf8").catch(() => "");
    return command.includes(this.#configFile) ? identity : undefined;
  }

  #config(version: 2 | 3): string {
    const { rootDir, stateDir } = this.#options;
    return [
      `version = ${version}`,
      `root = ${JSON.stringify(join(rootDir, "root"))}`,
      `state = ${JSON.stringify(join(stateDir, "state"))}`,
      `disabled_plugins = ${JSON.stringify(DISABLED.filter((id) => version === 3 || !id.startsWith("io.containerd.cri")))}`,
      "oom_score = -999",
      "[grpc]",
      `  address = ${JSON.stringify(this.socketPath)}`,
      "  uid = 0",
      "  gid = 0",
      "[ttrpc]",
      `  address = ${JSON.stringify(`${this.socketPath}.ttrpc`)}`,
      "[debug]",
      '  level = "warn"',
      "",
    ].join("\n");
  }
}

/** The containerd program of the distribution. @throws Fault failed_precondition naming the package */
export async function findContainerd(): Promise<string> {
  for (const directory of SYSTEM_PATH.split(":")) {
    const path = join(directory, "containerd");
    const found = await access(path).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  throw new Fault("failed_precondition", "Cannot find containerd on this machine", {
    hint: "apt-get install containerd",
  });
}

/** containerd 2 wants config version 3. */
async function configVersion(program: string): Promise<2 | 3> {
  const { stdout } = await runCommand([program, "--version"], { timeoutMs: 10_000 });
  const major = /\bv?(\d+)\.\d+\.\d+/.exec(stdout)?.[1];
  return major !== undefined && Number(major) >= 2 ? 3 : 2;
}

async function answers(socketPath: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(socketPath);
  socket.once("connect", () => {
    resolve(true);
  });
  socket.once("error", () => {
    resolve(false);
  });
  try {
    return await abortable(promise, AbortSignal.timeout(2_000)).catch(() => false);
  } finally {
    socket.destroy();
  }
}

async function lastWords(logFile: string): Promise<string> {
  const text = await readFile(logFile, "utf8").catch(() => "");
  return text.trim().split("\n").slice(-3).join(" | ").slice(-600);
}
