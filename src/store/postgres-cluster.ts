// The files of a private cluster: made beside their place and moved there whole, so that a crash leaves no half of one.
import { chmod, chown, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { runCommand } from "../lib/command.ts";
import { currentUser } from "../lib/current-user.ts";
import { identify } from "../lib/daemon.ts";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { type PostgresBinaries, type SystemUser } from "./postgres-binaries.ts";
import type { ClusterPlace, ClusterView } from "./postgres-view.ts";

/** Superuser and database of a private cluster. */
export const CLUSTER_NAME = "memoh";

const INIT_PREFIX = ".init-";

export interface InitOptions {
  readonly binaries: PostgresBinaries;
  readonly user: SystemUser;
  readonly view: ClusterView;
  readonly settings: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
}

/** Major version of the cluster, or undefined when there is none. @throws Fault when something else is in its place */
export async function clusterVersion(place: ClusterPlace): Promise<string | undefined> {
  try {
    return (await readFile(join(place.data, "PG_VERSION"), "utf8")).trim();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  if ((await namesIn(place.data)).length > 0) {
    throw new Fault(
      "failed_precondition",
      `Cannot run the private Postgres: ${place.data} is not a cluster of Postgres`,
      {
        hint: "Move what is there away, or choose another data directory; memoh deletes nothing there",
      },
    );
  }
  return undefined;
}

/** Makes the cluster with its user, database and access rules. Losing a race against another is success. */
export async function initCluster(place: ClusterPlace, options: InitOptions): Promise<void> {
  const { binaries, user, view, signal } = options;
  const own = await identify(process.pid);
  const temp = join(
    place.base,
    `${INIT_PREFIX}${process.pid}-${own?.startTime ?? ""}-${crypto.randomUUID().slice(0, 8)}`,
  );
  try {
    await mkdir(temp, { mode: 0o700 });
    await chown(temp, user.uid, user.gid);
    const inside = view.pathOf(temp);
    const args = `-U ${CLUSTER_NAME} -E UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=reject --data-checksums`;
    const fast = options.settings["fsync"] === "off" ? ["--no-sync"] : [];
    const init = [...args.split(" "), "--wal-segsize=1", ...fast, "-D", inside];
    await run(view.argv(join(binaries.bin, "initdb"), init), "make the cluster", signal);
    await writeConf(temp, place, options);
    const single = view.argv(join(binaries.bin, "postgres"), ["--single", "-j", "-D", inside, "postgres"]);
    await run(single, "make the database", signal, `create database ${CLUSTER_NAME};\n\n`);
    await rename(temp, place.data);
    await using handle = await open(place.base, "r");
    await handle.sync();
  } catch (error) {
    await removeHalfDone(temp);
    if (errnoOf(error) === "ENOTEMPTY" || errnoOf(error) === "EEXIST") return;
    throw error;
  }
}

/** Writes the server's configuration, as a whole: it is ours, and the server only reads it. */
export async function writeConf(
  directory: string,
  place: ClusterPlace,
  options: Pick<InitOptions, "view" | "settings">,
): Promise<void> {
  const settings: Record<string, string> = {
    listen_addresses: "",
    unix_socket_directories: `"${options.view.pathOf(place.run)}"`,
    unix_socket_permissions: "0700",
    max_connections: "20",
    shared_buffers: "16MB",
    max_worker_processes: "2",
    max_parallel_workers: "0",
    max_wal_senders: "0",
    wal_level: "minimal",
    min_wal_size: "32MB",
    max_wal_size: "128MB",
    autovacuum_max_workers: "1",
    jit: "off",
    timezone: "UTC",
    log_timezone: "UTC",
    logging_collector: "off",
    log_checkpoints: "off",
    // Statements that fail are reported to whoever sent them.
    log_min_messages: "log",
    ...options.settings,
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} = '${value.replaceAll("'", "''")}'\n`);
  const header = "# Written by memoh at every start of the private Postgres.\n";
  await writeFileAtomic(join(directory, "postgresql.conf"), header + lines.join(""));
  // The one way in: the unix socket, by the user this host runs as.
  await writeFileAtomic(join(directory, "pg_hba.conf"), `${header}local all all peer map=memoh\n`);
  await writeFileAtomic(
    join(directory, "pg_ident.conf"),
    `${header}memoh "${currentUser()}" ${CLUSTER_NAME}\n`,
  );
}

/** Directory for the socket, for the user postgres alone. */
export async function makeRunDirectory(place: ClusterPlace, user: SystemUser): Promise<void> {
  await mkdir(dirname(place.run), { recursive: true, mode: 0o711 });
  await mkdir(place.run, { recursive: true, mode: 0o700 });
  await chown(place.run, user.uid, user.gid);
  await chmod(place.run, 0o700);
}

/** Removes what a maker that is gone left unfinished; nothing of it was ever a database. */
export async function sweepHalfDone(place: ClusterPlace): Promise<void> {
  for (const name of await namesIn(place.base)) {
    if (!name.startsWith(INIT_PREFIX)) continue;
    const [pid, startTime] = name.slice(INIT_PREFIX.length).split("-");
    const maker = await identify(Number(pid));
    if (maker?.startTime !== startTime) await removeHalfDone(join(place.base, name));
  }
}

async function removeHalfDone(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    // A killed initdb's own children may still write for a moment; a later start takes what stays.
    if (errnoOf(error) !== "ENOTEMPTY") throw error;
  }
}

async function run(
  argv: readonly string[],
  doing: string,
  signal: AbortSignal | undefined,
  input = "",
): Promise<void> {
  const result = await runCommand(argv, { input, cwd: "/", timeoutMs: 120_000, ...(signal && { signal }) });
  const words = `${result.stdout}\n${result.stderr}`;
  // In single-user mode an error does not change the exit code.
  if (result.code === 0 && !/^.*(ERROR|FATAL|PANIC): /m.test(words)) return;
  throw faultFromWords(words, doing);
}

/** A Fault for what a program of Postgres said before it gave up. */
export function faultFromWords(words: string, doing: string): Fault {
  const lines = words.trim().split("\n");
  // The lines with a level say why, a LOG line before FATAL too; what programs say around them does not.
  const told = lines.filter((line) => /(LOG|ERROR|FATAL|PANIC|DETAIL|HINT|error): /.test(line));
  const said = (told.length > 0 ? told : lines).slice(-5).join("; ").slice(-1000);
  const message = `Cannot ${doing} of the private Postgres: ${said === "" ? "it ended without a word" : said}`;
  if (/no space left on device|disk quota exceeded/i.test(words)) {
    return new Fault("resource_exhausted", message, { hint: "Free disk space where memoh keeps its data" });
  }
  if (/unshare|mount: |setpriv/.test(words)) {
    return new Fault("failed_precondition", message, {
      hint: "Choose a data directory whose parents the user postgres may pass, such as below /var/lib",
    });
  }
  if (/permission denied|read-only file system/i.test(words))
    return new Fault("failed_precondition", message);
  return new Fault("internal", message);
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
