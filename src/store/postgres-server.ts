// The server of a private cluster: started detached, adopted when it runs, started again when it has ended.
import { access, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { isRunning, type ProcessIdentity, startDaemon } from "../lib/daemon.ts";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { deadline, reasonOf, sleep, throwIfAborted, withDeadline } from "../lib/signal.ts";
import { Connection } from "./connection.ts";
import { choosePostgres, postgresUser } from "./postgres-binaries.ts";
import {
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
import type { DatabaseTarget } from "./target.ts";

/** What differs between a host and a test. */
export interface ServerSettings {
  /** Over ours in postgresql.conf. Tests turn durability off; nothing else should. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
  /** Where versions of Postgres are looked for. */
  readonly binariesRoot?: string | undefined;
}

export interface ServerOptions {
  readonly place: ClusterPlace;
  readonly target: DatabaseTarget;
  /** Directories of the host above the cluster and the socket, which may be made passable. */
  readonly own: readonly string[];
  readonly log: Logger;
  readonly settings: ServerSettings;
}

/** Time for a server that runs to say it is ready: recovery after a crash replays up to max_wal_size. */
const READY_MS = 300_000;
/** Time for the system to reap a dead postmaster. */
const ZOMBIE_MS = 30_000;
/** How often a crash is looked for. */
const WATCH_MS = 500;
/** Between two looks at a server that starts, in milliseconds. */
const LOOK_MS = 10;
/** Looks at a ready server without its socket, before it is restarted. */
const DEAF_LOOKS = 20;
/** Between two attempts to start a server that cannot be started. */
const RETRY_MS = 5_000;
/** Bytes of log after which the next start begins a new one. */
const LOG_MAX = 16 << 20;

export class PostgresServer {
  readonly #options: ServerOptions;
  #process: ProcessIdentity | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** @returns whether it ran already */
  async ensureRunning(signal: AbortSignal | undefined): Promise<boolean> {
    using limit = withDeadline(signal, READY_MS, "start the private Postgres");
    let adopted = true;
    let deaf = 0;
    for (;;) {
      throwIfAborted(limit.signal);
      const found = await findPostmaster(this.#options.place.data);
      if (found.kind === "zombie") {
        await waitForReaping(found.pid, limit.signal);
        continue;
      }
      if (found.kind === "none") {
        adopted = false;
        await this.#start(limit.signal);
        continue;
      }
      const answer = found.ready ? await this.#ask(limit.signal) : "later";
      if (answer === "yes") {
        this.#process = found.process;
        return adopted;
      }
      if (answer === "no socket" && ++deaf > DEAF_LOOKS) {
        // It was removed under the server, or is elsewhere than we want it: only a new start makes it anew.
        this.#options.log.warn(
          { pid: found.process.pid },
          "the private Postgres has lost its socket; restarting it",
        );
        await stopPostmaster(found.process);
      }
      await sleep(LOOK_MS, limit.signal);
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
    const { log, place, own } = this.#options;
    const { settings = {}, binariesRoot } = this.#options.settings;
    const version = await clusterVersion(place);
    if (version === undefined && this.#process !== undefined) {
      // An empty database in its place would look like one that lost everything.
      throw new Fault(
        "data_loss",
        `Cannot start the private Postgres: its data in ${place.data} has vanished`,
        {
          hint: "Restore the directory, then start the host again",
        },
      );
    }
    const binaries = await choosePostgres(version, binariesRoot);
    const user = await postgresUser(signal);
    await makeRunDirectory(place, user);
    const view = await clusterView(place, own, user);
    await sweepHalfDone(place);
    if (version === undefined) {
      log.info({ directory: place.data, version: binaries.version }, "making a private Postgres");
      await initCluster(place, { binaries, user, view, settings, signal });
    }
    await writeConf(place.data, place, { view, settings });
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
  async #ask(signal: AbortSignal): Promise<"yes" | "later" | "no socket"> {
    try {
      await using connection = await Connection.open(this.#options.target, {
        signal,
        statementTimeoutMs: 5_000,
      });
      return connection.usable ? "yes" : "later";
    } catch (error) {
      if (signal.aborted) throw reasonOf(signal);
      const state = errorCodeOf(error);
      // Too many connections is an answer as well.
      if (state === "53300") return "yes";
      if (state !== undefined && !state.startsWith("57P")) {
        throw faultFromDatabase(error, { doing: "use the private Postgres" });
      }
      this.#options.log.debug({ err: error }, "the private Postgres does not answer yet");
      return errnoOf(error) === "ENOENT" || errnoOf(error) === "ECONNREFUSED" ? "no socket" : "later";
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
  try {
    const { size } = await stat(logFile);
    if (size < LOG_MAX) return size;
    await rename(logFile, `${logFile}.1`);
    return 0;
  } catch (error) {
    // There is none yet, or another host was quicker.
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
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
