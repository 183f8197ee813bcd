// What the machine must have before a host may start: binaries, rights, kernel features, disk. Each with what to do.
import { access, constants, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { HostConfig } from "../config/host-config.ts";
import type { Check } from "../core/control.ts";
import { SYSTEM_PATH } from "../lib/command.ts";
import { Fault } from "../lib/fault.ts";
import { freeBytes } from "./disk.ts";

const CNI_DIRS = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const POSTGRES_ROOT = "/usr/lib/postgresql";

/** Every check of the machine itself; none of them changes anything. */
export async function machineChecks(config: HostConfig): Promise<Check[]> {
  const own = config.containerd.socketPath === "";
  return await Promise.all([
    Promise.resolve(rootCheck()),
    kernelCheck(),
    cgroupCheck(),
    ...(own ? [programCheck("containerd", "containerd", "containerd")] : [socketCheck(config)]),
    config.containerd.runtimeBinary === ""
      ? programCheck("runc", "runc", "runc")
      : fileCheck("runtime", config.containerd.runtimeBinary, "Correct containerd.runtime_binary"),
    programCheck("iptables", "iptables", "iptables"),
    programCheck("ip", "ip", "iproute2"),
    pluginCheck(config),
    ...(config.database.url === undefined ? [postgresCheck()] : []),
    diskCheck(config),
  ]);
}

/** @throws Fault failed_precondition that lists what is missing and what to do */
export async function requireMachine(config: HostConfig): Promise<void> {
  const wrong = (await machineChecks(config)).filter((check) => !check.ok && FATAL.has(check.name));
  if (wrong.length === 0) return;
  throw new Fault(
    wrong.some((check) => check.name === "root") ? "permission_denied" : "failed_precondition",
    `Cannot start: ${wrong.map((check) => check.detail).join("; ")}`,
    { hint: wrong.map((check) => check.hint ?? "").join("; ") },
  );
}

/** What no waiting mends; a daemon that is merely down or a full disk is waited for. */
const FATAL = new Set([
  "root",
  "kernel",
  "cgroup",
  "containerd",
  "runc",
  "runtime",
  "iptables",
  "ip",
  "cni_plugins",
  "postgres",
]);

function rootCheck(): Check {
  const ok = process.getuid?.() === 0;
  return {
    name: "root",
    ok,
    detail: ok ? "running as root" : "not running as root",
    ...(ok ? {} : { hint: "Run memoh host as root: it makes containers, namespaces and firewall rules" }),
  };
}

async function kernelCheck(): Promise<Check> {
  const filesystems = await readFile("/proc/filesystems", "utf8");
  const missing = [
    ...(/\boverlay$/m.test(filesystems) ? [] : ["overlayfs"]),
    ...(
      await Promise.all(
        ["net", "pid", "mnt", "uts", "ipc"].map(async (name) =>
          (await exists(`/proc/self/ns/${name}`)) ? [] : [name],
        ),
      )
    ).flat(),
  ];
  const ok = missing.length === 0;
  return {
    name: "kernel",
    ok,
    detail: ok ? "overlayfs and namespaces" : `the kernel lacks ${missing.join(", ")}`,
    ...(ok
      ? {}
      : { hint: missing.includes("overlayfs") ? "modprobe overlay" : "Use a kernel with namespaces" }),
  };
}

async function cgroupCheck(): Promise<Check> {
  const v2 = await exists("/sys/fs/cgroup/cgroup.controllers");
  const v1 = !v2 && (await exists("/sys/fs/cgroup/memory")) && (await exists("/sys/fs/cgroup/pids"));
  const ok = v1 || v2;
  return {
    name: "cgroup",
    ok,
    detail: v2 ? "cgroup v2" : v1 ? "cgroup v1" : "no cgroups below /sys/fs/cgroup",
    ...(ok ? {} : { hint: "Mount cgroup2 on /sys/fs/cgroup" }),
  };
}

async function programCheck(name: string, program: string, aptPackage: string): Promise<Check> {
  for (const directory of SYSTEM_PATH.split(":")) {
    const path = join(directory, program);
    if (await exists(path, constants.X_OK)) return { name, ok: true, detail: path };
  }
  return {
    name,
    ok: false,
    detail: `${program} is not installed`,
    hint: `apt-get install ${aptPackage}`,
  };
}

async function fileCheck(name: string, path: string, hint: string): Promise<Check> {
  const ok = await exists(path, constants.X_OK);
  return { name, ok, detail: ok ? path : `${path} is not an executable file`, ...(ok ? {} : { hint }) };
}

async function socketCheck(config: HostConfig): Promise<Check> {
  const path = config.containerd.socketPath;
  const ok = await stat(path).then(
    (stats) => stats.isSocket(),
    () => false,
  );
  return {
    name: "containerd_socket",
    ok,
    detail: ok ? path : `there is no socket at ${path}`,
    ...(ok ? {} : { hint: "Start that containerd, or correct containerd.socket_path" }),
  };
}

async function pluginCheck(config: HostConfig): Promise<Check> {
  const directories = config.network.pluginDir === "" ? CNI_DIRS : [config.network.pluginDir];
  for (const directory of directories) {
    const [bridge, hostLocal] = await Promise.all([
      exists(join(directory, "bridge"), constants.X_OK),
      exists(join(directory, "host-local"), constants.X_OK),
    ]);
    if (bridge && hostLocal) return { name: "cni_plugins", ok: true, detail: directory };
  }
  return {
    name: "cni_plugins",
    ok: false,
    detail: `the CNI plugins bridge and host-local are not in ${directories.join(", ")}`,
    hint: "apt-get install containernetworking-plugins",
  };
}

async function postgresCheck(): Promise<Check> {
  const { readdir } = await import("node:fs/promises");
  const versions = await readdir(POSTGRES_ROOT).catch(() => []);
  for (const version of versions.sort((a, b) => Number(b) - Number(a))) {
    const path = join(POSTGRES_ROOT, version, "bin");
    if (await exists(join(path, "postgres"), constants.X_OK))
      return { name: "postgres", ok: true, detail: path };
  }
  return {
    name: "postgres",
    ok: false,
    detail: `no Postgres below ${POSTGRES_ROOT}`,
    hint: "apt-get install postgresql, or set MEMOH_DATABASE_URL",
  };
}

async function diskCheck(config: HostConfig): Promise<Check> {
  let place = config.dataDir;
  while (!(await exists(place)) && place !== "/") place = join(place, "..");
  const free = await freeBytes(place);
  const ok = free >= config.limits.diskReserve;
  const mib = Math.floor(free / 2 ** 20);
  return {
    name: "disk",
    ok,
    detail: `${mib} MiB free for ${config.dataDir}`,
    ...(ok ? {} : { hint: "Free disk space, or lower limits.disk_reserve" }),
  };
}

async function exists(path: string, mode = constants.F_OK): Promise<boolean> {
  return await access(path, mode).then(
    () => true,
    () => false,
  );
}
