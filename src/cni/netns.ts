// Named network namespaces: files that hold a namespace while no process lives in it.
import { mkdir, open, readdir, readFile, realpath, rm, rmdir, stat, statfs } from "node:fs/promises";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { hostCommand } from "./host-command.ts";

/** Type of the file system a namespace file is on (linux/magic.h). */
const NSFS_MAGIC = 0x6e736673;

/**
 * Run in the new namespace: loopback up, and no IPv6 on any interface that comes later. ::1 stays, for programs that
 * listen there. /proc/sys/net shows the namespace of who looks, so nothing has to be mounted.
 */
const INIT = `ip link set lo up || exit
f=/proc/sys/net/ipv6/conf/default/disable_ipv6
[ ! -e "$f" ] || echo 1 > "$f"`;

/** Makes the directory, as a mount that other mount namespaces (containerd's) see changes of. */
export async function ensureNetnsDir(dir: string, signal?: AbortSignal): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o711 });
    // Mounts are listed by their real paths, and /var/run is a link on most hosts.
    if (isShared(await realpath(dir), await readFile("/proc/self/mountinfo", "utf8"))) return;
  } catch (error) {
    throw faultFromErrno(error, `Cannot make ${dir}`, "Run memoh host as root");
  }
  await hostCommand(["mount", "--bind", dir, dir], { signal });
  await hostCommand(["mount", "--make-shared", dir], { signal });
}

/** Takes away what ensureNetnsDir made; the namespaces in it are gone by then. */
export async function removeNetnsDir(dir: string, signal?: AbortSignal): Promise<void> {
  try {
    const real = await realpath(dir);
    const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
    if (mounts.some((line) => mountPoint(line) === real)) {
      await hostCommand(["umount", "--lazy", real], { signal });
    }
    await rmdir(dir);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw faultFromErrno(error, `Cannot remove ${dir}`);
  }
}

/**
 * Whether the mount a directory lies on propagates, by the text of /proc/self/mountinfo (proc(5): the mount point is
 * the fifth field, `shared:N` one of the optional ones). Of several mounts on one point the last is on top.
 */
export function isShared(dir: string, mountinfo: string): boolean {
  let best = { length: -1, shared: false };
  for (const line of mountinfo.split("\n")) {
    const point = mountPoint(line);
    if (point === undefined) continue;
    const covers = dir === point || dir.startsWith(point === "/" ? "/" : `${point}/`);
    if (covers && point.length >= best.length) {
      best = { length: point.length, shared: / shared:\d+ .*- /.test(line) };
    }
  }
  return best.shared;
}

function mountPoint(line: string): string | undefined {
  return line
    .split(" ")[4]
    ?.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Names in the directory, mounted or not. */
export async function listNetns(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw faultFromErrno(error, `Cannot read ${dir}`);
  }
}

/** Whether a namespace is mounted there, and not just the file it was mounted on. */
export async function isNetns(path: string): Promise<boolean> {
  try {
    return (await statfs(path)).type === NSFS_MAGIC;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw faultFromErrno(error, `Cannot look at ${path}`);
  }
}

/** Makes a namespace and mounts it on the path, whose directory exists. One process, about 6 ms. */
export async function createNetns(path: string, signal?: AbortSignal): Promise<void> {
  await touch(path);
  await hostCommand(["unshare", `--net=${path}`, "sh", "-c", INIT], { signal });
  if (!(await isNetns(path))) throw new Fault("internal", `Cannot make the network namespace ${path}`);
}

/** Mounts a namespace that exists, such as a process's, on the path. */
export async function mountNetns(source: string, path: string, signal?: AbortSignal): Promise<void> {
  await touch(path);
  await hostCommand(["mount", "--bind", source, path], { signal });
}

/** The number a namespace is known by, as in `net:[4026531840]`. */
export async function netnsInode(path: string): Promise<string> {
  return String((await stat(path, { bigint: true })).ino);
}

/** Unmounts and removes the name. What still runs inside keeps the namespace itself. Nothing there is success. */
export async function deleteNetns(path: string, signal?: AbortSignal): Promise<void> {
  // More than one when something was mounted over it.
  for (let rounds = 0; rounds < 8 && (await isNetns(path)); rounds++) {
    await hostCommand(["umount", "--lazy", path], { signal });
  }
  try {
    await rm(path, { force: true });
  } catch (error) {
    throw faultFromErrno(error, `Cannot remove ${path}`);
  }
}

/** Runs `ip` commands inside, one per line; every line that asks answers with one line of JSON. */
export async function ipInside(path: string, commands: readonly string[], signal?: AbortSignal) {
  return await hostCommand(["nsenter", `--net=${path}`, "ip", "-json", "-batch", "-"], {
    input: `${commands.join("\n")}\n`,
    signal,
  });
}

/** The file a namespace is mounted on. */
async function touch(path: string): Promise<void> {
  try {
    await using _file = await open(path, "a", 0o444);
  } catch (error) {
    throw faultFromErrno(error, `Cannot make ${path}`);
  }
}
