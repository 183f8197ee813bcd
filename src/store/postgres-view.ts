// How the user postgres reaches a cluster: directly where it may pass every directory above, else through a private
// bind mount, so that the data directory can be anywhere root can write and nobody's home has to be opened.
import { chmod, mkdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { faultFromErrno } from "../lib/errno.ts";
import type { SystemUser } from "./postgres-binaries.ts";

/** Directories of a private Postgres as the host sees them. */
export interface ClusterPlace {
  /** `<data>/postgres`; holds everything below but a socket directory elsewhere. */
  readonly base: string;
  /** The cluster itself. */
  readonly data: string;
  /** Where the socket is. */
  readonly run: string;
}

/** The same directories as the server sees them, and how to run its programs there. */
export interface ClusterView {
  /** Turns a path below `base` (or `run`) into the server's. */
  readonly pathOf: (path: string) => string;
  /** Argument vector that runs a program as the user postgres; it is the same process, so the pid stays. */
  readonly argv: (program: string, args: readonly string[]) => readonly [string, ...string[]];
}

/** What the bind mount covers, for the server alone: Debian's home of the user postgres, else a directory of any Linux. */
const MOUNT_POINTS = ["/var/lib/postgresql", "/mnt"];

/**
 * Makes our own directories passable (0711) and decides how the server gets to them.
 * @param ours data and run directory of the host
 */
export async function clusterView(
  place: ClusterPlace,
  ours: readonly string[],
  user: SystemUser,
): Promise<ClusterView> {
  try {
    for (const own of [...ours, place.base]) {
      await mkdir(own, { recursive: true, mode: 0o711 });
      const { mode } = await stat(own);
      if ((mode & 0o011) !== 0o011) await chmod(own, (mode & 0o7777) | 0o011);
    }
    const direct = (await passable(place.base, user)) && (await passable(dirname(place.run), user));
    return direct ? directView(user) : await mountedView(place, user);
  } catch (error) {
    throw faultFromErrno(error, `Cannot prepare ${place.base}`);
  }
}

function asUser({ uid, gid }: SystemUser): readonly [string, ...string[]] {
  return ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--"];
}

function directView(user: SystemUser): ClusterView {
  return { pathOf: (path) => path, argv: (program, args) => [...asUser(user), program, ...args] };
}

async function mountedView(place: ClusterPlace, user: SystemUser): Promise<ClusterView> {
  const point = await firstDirectory(MOUNT_POINTS);
  // A socket directory elsewhere is mounted over this one.
  await mkdir(join(place.base, "run"), { recursive: true });
  const script =
    'mount --bind "$1" "$3" && if [ "$2" != "$1/run" ]; then mount --bind "$2" "$3/run"; fi && shift 3 && exec "$@"';
  return {
    pathOf: (path) => {
      if (path === place.run) return join(point, "run");
      return path.startsWith(`${place.base}/`) ? join(point, path.slice(place.base.length)) : path;
    },
    argv: (program, args) => [
      "unshare",
      "--mount",
      "--propagation=private",
      "--",
      "/bin/sh",
      "-c",
      script,
      "memoh-postgres",
      place.base,
      place.run,
      point,
      ...asUser(user),
      program,
      ...args,
    ],
  };
}

/** Whether the user may pass every directory from the root to this one. */
async function passable(directory: string, { uid, gid }: SystemUser): Promise<boolean> {
  for (let path = resolve(directory); ; path = dirname(path)) {
    const { mode, uid: owner, gid: group } = await stat(path);
    const bit = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
    if (path === "/") return true;
  }
}

async function firstDirectory(paths: readonly string[]): Promise<string> {
  for (const path of paths) {
    const isDirectory = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (isDirectory) return path;
  }
  return "/";
}
