// memoh's own Postgres: the distribution's programs over a cluster in the data directory, on a unix socket only. It is
// detached: it outlives the host, the next host adopts it, and one that crashes is started again.
import { join, resolve } from "node:path";
import { faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { socketFile } from "./connection.ts";
import { CLUSTER_NAME } from "./postgres-cluster.ts";
import { findPostmaster, stopPostmaster } from "./postgres-process.ts";
import { PostgresServer, type ServerSettings } from "./postgres-server.ts";
import type { ClusterPlace } from "./postgres-view.ts";
import { type DatabaseTarget, databaseTarget } from "./target.ts";

export interface PrivatePostgresOptions extends ServerSettings {
  /** The host's data directory; the cluster is in `postgres/` below it. */
  readonly dataDir: string;
  /** Where `postgres/` for the socket goes; below the cluster's directory when absent. */
  readonly runDir?: string | undefined;
  readonly log: Logger;
  readonly signal?: AbortSignal | undefined;
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

/** sun_path holds 108 bytes with its final NUL. */
const SOCKET_PATH_MAX = 107;

/** Directories of the private Postgres of a host. */
function placeOf({ dataDir, runDir }: Pick<PrivatePostgresOptions, "dataDir" | "runDir">): ClusterPlace {
  const base = join(resolve(dataDir), "postgres");
  return {
    base,
    data: join(base, "data"),
    run: runDir === undefined ? join(base, "run") : join(resolve(runDir), "postgres"),
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
  const own = options.runDir === undefined ? [options.dataDir] : [options.dataDir, options.runDir];
  const log = options.log.child({ room: "postgres" });
  const server = new PostgresServer({
    place,
    target,
    own: own.map((path) => resolve(path)),
    log,
    settings: options,
  });
  const adopted = await started(server, options.signal);
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

async function started(server: PostgresServer, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    return await server.ensureRunning(signal);
  } catch (error) {
    throw faultFromErrno(error, "Cannot start the private Postgres");
  }
}
