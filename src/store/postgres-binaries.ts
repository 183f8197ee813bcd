// Where the distribution keeps the programs of Postgres, and the system user they run as.
import { access, constants, readdir } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../lib/command.ts";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";

/** Debian's place. PATH is not looked at: the programs are not on it, and another's must not be mixed in. */
export const POSTGRES_ROOT = "/usr/lib/postgresql";

/** The programs of one major version. */
export interface PostgresBinaries {
  /** `15` */
  readonly version: string;
  /** Directory of `postgres` and `initdb`. */
  readonly bin: string;
}

/** A system user that owns the cluster and runs the server. */
export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

const INSTALL = "Run `apt-get install --no-install-recommends postgresql`, or give --database-url";

/** Every installed major version, newest first. */
export async function installedPostgres(root: string = POSTGRES_ROOT): Promise<PostgresBinaries[]> {
  const found: PostgresBinaries[] = [];
  for (const version of await namesIn(root)) {
    const bin = join(root, version, "bin");
    if (/^\d+$/.test(version) && (await runs(join(bin, "postgres"))) && (await runs(join(bin, "initdb")))) {
      found.push({ version, bin });
    }
  }
  return found.sort((a, b) => Number(b.version) - Number(a.version));
}

/**
 * The programs for a cluster: those of its version, or the newest for a cluster that is not made yet.
 * @throws Fault failed_precondition that says what to install
 */
export async function choosePostgres(
  clusterVersion: string | undefined,
  root: string = POSTGRES_ROOT,
): Promise<PostgresBinaries> {
  const installed = await installedPostgres(root);
  const chosen =
    clusterVersion === undefined ? installed[0] : installed.find(({ version }) => version === clusterVersion);
  if (chosen !== undefined) return chosen;
  if (clusterVersion === undefined || installed.length === 0) {
    throw new Fault("failed_precondition", `Cannot run the private Postgres: none is installed in ${root}`, {
      hint: INSTALL,
    });
  }
  const others = installed.map(({ version }) => version).join(", ");
  throw new Fault(
    "failed_precondition",
    `Cannot run the private Postgres: its data is of version ${clusterVersion}, installed is ${others}`,
    { hint: `Run \`apt-get install postgresql-${clusterVersion}\`, or move the data with pg_upgrade` },
  );
}

/** The distribution's user `postgres`. @throws Fault failed_precondition */
export async function postgresUser(signal?: AbortSignal): Promise<SystemUser> {
  const result = await runCommand(["getent", "passwd", "postgres"], {
    ...(signal && { signal }),
    timeoutMs: 10_000,
  });
  const [, , uid, gid] = result.stdout.split(":");
  if (result.code !== 0 || uid === undefined || gid === undefined || Number(uid) === 0) {
    throw new Fault(
      "failed_precondition",
      "Cannot run the private Postgres: there is no system user postgres",
      {
        hint: INSTALL,
      },
    );
  }
  return { uid: Number(uid), gid: Number(gid) };
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw faultFromErrno(error, `Cannot read ${directory}`);
  }
}

async function runs(program: string): Promise<boolean> {
  return await access(program, constants.X_OK).then(
    () => true,
    () => false,
  );
}
