// memoh's own Postgres: the distribution's programs over a cluster in the data directory, on a unix socket only. It is
// detached: it outlives the host, the next host adopts it, and one that crashes is started again.
import { access, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { isRunning, type ProcessIdentity, startDaemon } from "../lib/daemon.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { deadline, reasonOf, sleep, throwIfAborted, withDeadline } from "../lib/signal.ts";
import { Connection, socketFile } from "./connection.ts";
import { choosePostgres, postgresUser } from "./postgres-binaries.ts";
import {
  CLUSTER_NAME,
  clusterVersion,
  faultFromWords,
  initCluster,
  makeRunDirectory,
  sweepHalfDone,
  writeConf,
} from "./postgres-cluster.ts";
import { findPostmaster, stopPostmaster } from "./postgres-process.ts";
import { type ClusterPlace, clusterView } from "./postgres-view.ts";
import { errorCodeOf, faultFromDatabase } from "./sqlstate.ts";
import { type DatabaseTarget, databaseTarget } from "./target.ts";

export interface PrivatePostgresOptions {
  /** The host's data directory; the cluster is in `postgres/` below it. */
  readonly dataDir: string;
  /** Where `postgres/` for the socket goes; below the cluster's directory when absent. */
  readonly runDir?: string | undefined;
  readonly log: Logger;
  readonly signal?: AbortSignal | undefined;
  /** Over ours in postgresql.conf. Tests turn durability off; nothing else should. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
  /** Where versions of Postgres are looked for. */
  readonly binariesRoot?: string | undefined;
}

/** A private Postgres that runs. It is nobody's to dispose: it goes on without us. */
export interface RunningPostgres {
  /** Process id of the postmaster. */
  readonly pid: number;
  /** Ends the server: a fast shutdown, else an immediate one. */
  stop(): Promise<void>;
}

export interface PrivatePostgres extends RunningPostgres {
  readonly target: DatabaseTarget;
  /** Whether it ran already. */
  readonly adopted: boolean;
  /** Starts it again within a second of a crash, until the signal aborts. Never rejects. */
  keepRunning(signal: AbortSignal): Promise<void>;
}

/** Time for a server that runs to say it is ready: recovery after a crash replays up to max_wal_size. */
const READY_MS = 300_000;
/** Time for the system to reap a dead postmaster. */
const ZOMBIE_MS = 30_000;
/** How often a crash is looked for. */
const WATCH_MS = 500;
/** sun_path holds 108 bytes with its final NUL. */
const SOCKET_PATH_MAX = 107;
/** Between two looks at a server that starts, in milliseconds. */
const LOOK_MS = 10;
/** Looks at a ready server that takes no connection, before it is restarted. */
const SILENT_LOOKS = 20;
/** Between two attempts to start a server that cannot be started. */
const RETRY_MS = 5_000;
/** Bytes of log after which the next start begins a new one. */
const LOG_MAX = 16 << 20;

/** Directories of the private Postgres of a host. */
function placeOf({ dataDir, runDir }: Pick<PrivatePostgresOptions, "dataDir" | "runDir">): ClusterPlace {
  const base = join(dataDir, "postgres");
  return {
    base,
    data: join(base, "data"),
    run: runDir === undefined ? join(base, "run") : join(runDir, "postgres"),
  };
}

function targetOf(place: ClusterPlace): DatabaseTarget {
  const target = databaseTarget({ host: place.run, user: CLUSTER_NAME, database: CLUSTER_NAME });
  const path = socketFile(target);
  if (Buffer.byteLength(path) > SOCKET_PATH_MAX) {
    throw new Fault(
      "failed_precondition",
      `Cannot run the private Postgres: the path of its socket is longer than ${SOCKET_PATH_MAX} bytes: ${path}`,
      { hint: "Choose a data or run directory with a shorter path" },
    );
  }
  return target;
}

/**
 * Makes the cluster unless it exists and its server run unless it does.
 * @throws Fault failed_precondition naming what to install or change, resource_exhausted when the disk is full
 */
export async function openPrivatePostgres(options: PrivatePostgresOptions): Promise<PrivatePostgres> {
  if (process.getuid?.() !== 0) {
    throw new Fault(
      "permission_denied",
      "Cannot run the private Postgres: only root can run it as another user",
      {
        hint: "Run memoh as root, or give --database-url",
      },
    );
  }
  const place = placeOf(options);
  const target = targetOf(place);
  const server = new Server(place, target, { ...options, log: options.log.child({ room: "postgres" }) });
  const adopted = await server.ensureRunning(options.signal);
  return {
    target,
    adopted,
    get pid() {
      return server.pid;
    },
    stop: async () => {
      const found = await findPrivatePostgres(options);
      await found?.stop();
    },
    keepRunning: async (signal) => {
      await server.watch(signal);
    },
  };
}

/** The private Postgres of a data directory if it runs, whoever started it. Starts nothing. */
export async function findPrivatePostgres(
  options: Pick<PrivatePostgresOptions, "dataDir" | "runDir"> & { readonly log?: Logger },
): Promise<RunningPostgres | undefined> {
  const found = await findPostmaster(placeOf(options).data);
  if (found.kind !== "alive") return undefined;
  const postmaster = found.process;
  return {
    pid: postmaster.pid,
    stop: async () => {
      await stopPostmaster(postmaster);
    },
  };
}

class Server {
  readonly #place: ClusterPlace;
  readonly #target: DatabaseTarget;
  readonly #options: PrivatePostgresOptions;
  #process: ProcessIdentity | undefined;

  constructor(place: ClusterPlace, target: DatabaseTarget, options: PrivatePostgresOptions) {
    this.#place = place;
    this.#target = target;
    this.#options = options;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** @returns whether it ran already */
  async ensureRunning(signal: AbortSignal | undefined): Promise<boolean> {
    using limit = withDeadline(signal, READY_MS, "start the private Postgres");
    let adopted = true;
    let silent = 0;
    for (;;) {
      throwIfAborted(limit.signal);
      const found = await findPostmaster(this.#place.data);
      if (found.kind === "zombie") {
        await waitForReaping(found.pid, limit.signal);
      } else if (found.kind === "none") {
        adopted = false;
        await this.#start(limit.signal);
      } else if (found.ready && (await this.#answers(limit.signal))) {
        this.#process = found.process;
        return adopted;
      } else if (found.ready && ++silent > SILENT_LOOKS) {
        // Its socket was removed under it, or is elsewhere than we want it: only a new start makes it anew.
        this.#options.log.warn(
          { pid: found.process.pid },
          "the private Postgres has lost its socket; restarting it",
        );
        await stopPostmaster(found.process);
      } else {
        await sleep(LOOK_MS, limit.signal);
      }
    }
  }

  /** Starts the server again whenever it ends, until the signal aborts. Never rejects. */
  async watch(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    let wait = WATCH_MS;
    while (!signal.aborted) {
      try {
        await sleep(wait, signal, true);
        wait = WATCH_MS;
        if (this.#process !== undefined && (await isRunning(this.#process))) continue;
        log.error({ pid: this.pid }, "the private Postgres has ended; starting it again");
        await this.ensureRunning(signal);
        log.info({ pid: this.pid }, "the private Postgres runs again");
      } catch (error) {
        if (signal.aborted) return;
        log.error({ err: error }, "the private Postgres cannot be started; trying again");
        wait = RETRY_MS;
      }
    }
  }

  /** Starts the server and waits until it is ready; another that was quicker is left to the next look. */
  async #start(signal: AbortSignal): Promise<void> {
    const { log, dataDir, runDir, settings = {}, binariesRoot } = this.#options;
    const place = this.#place;
    const version = await clusterVersion(place);
    const binaries = await choosePostgres(version, binariesRoot);
    const user = await postgresUser(signal);
    await makeRunDirectory(place, user);
    const view = await clusterView(place, runDir === undefined ? [dataDir] : [dataDir, runDir], user);
    await sweepHalfDone(place);
    if (version === undefined) {
      log.info({ directory: place.data, version: binaries.version }, "making a private Postgres");
      await initCluster(place, { binaries, user, view, settings, signal });
    }
    await writeConf(place.data, place, { user, view, settings });
    const logFile = join(place.base, "postgres.log");
    const before = await rotate(logFile);
    const argv = view.argv(join(binaries.bin, "postgres"), ["-D", view.pathOf(place.data)]);
    try {
      const child = await startDaemon({ argv, pidFile: join(place.base, "postgres.pid"), logFile, signal });
      while (await isRunning(child)) {
        const found = await findPostmaster(place.data);
        // The lock file of a crashed predecessor says "ready" too, until ours replaces it.
        if (found.kind === "alive" && found.ready && found.process.pid === child.pid) return;
        await sleep(LOOK_MS, signal);
      }
    } catch (error) {
      // What ended at once has said why in its log.
      if (signal.aborted || !Fault.is(error, "unavailable")) throw error;
    }
    const words = await wordsSince(logFile, before);
    if (!words.includes('"postmaster.pid" already exists')) throw faultFromWords(words, "start the server");
    await sleep(LOOK_MS, signal);
  }

  /** Whether it takes our connection. @throws Fault when it answers and refuses us */
  async #answers(signal: AbortSignal): Promise<boolean> {
    try {
      await using connection = await Connection.open(this.#target, { signal, statementTimeoutMs: 5_000 });
      return connection.usable;
    } catch (error) {
      const state = errorCodeOf(error);
      // Too many connections is an answer as well.
      if (state === "53300") return true;
      if (state !== undefined && !state.startsWith("57P")) {
        throw faultFromDatabase(error, { doing: "use the private Postgres" });
      }
      if (signal.aborted) throw reasonOf(signal);
      this.#options.log.debug({ err: error }, "the private Postgres does not answer yet");
      return false;
    }
  }
}

async function waitForReaping(pid: number, signal: AbortSignal): Promise<void> {
  try {
    await deadline(signal, ZOMBIE_MS, "reap the dead private Postgres", async (limit) => {
      while (await isThere(`/proc/${pid}`)) await sleep(LOOK_MS, limit);
    });
  } catch (error) {
    if (signal.aborted) throw reasonOf(signal);
    throw new Fault(
      "unavailable",
      `Cannot start the private Postgres: its dead process ${pid} is not reaped by PID 1`,
      {
        cause: error,
        hint: "In a container, run an init such as tini as PID 1",
      },
    );
  }
}

/** Puts a long log aside. @returns the size of what stays */
async function rotate(logFile: string): Promise<number> {
  if (!(await isThere(logFile))) return 0;
  const { size } = await stat(logFile);
  if (size < LOG_MAX) return size;
  await rename(logFile, `${logFile}.1`);
  return 0;
}

async function wordsSince(logFile: string, offset: number): Promise<string> {
  await using file = await open(logFile, "r");
  const { buffer, bytesRead } = await file.read(Buffer.alloc(16_384), 0, 16_384, offset);
  return buffer.toString("utf8", 0, bytesRead);
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
