// What this machine and the daemon on it can give a container, read from /proc and the cgroup file system.
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { arch } from "node:os";
import { Fault } from "../lib/fault.ts";
import type { Machine } from "../oci/spec.ts";
import type { ContainerdServices } from "./client.ts";

/** Capabilities by bit, as in linux/capability.h. */
const CAPABILITY_NAMES = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
];

/**
 * Reads the machine as the daemon sees it.
 * @param pid of the daemon; "self" when it is not known, which has the same limits unless someone set others
 */
export async function readMachine(pid: number | "self"): Promise<Machine> {
  const [status, limits, oom] = await Promise.all([
    readFile(`/proc/${pid}/status`, "utf8"),
    readFile(`/proc/${pid}/limits`, "utf8"),
    readFile(`/proc/${pid}/oom_score_adj`, "utf8"),
  ]);
  return {
    architecture: architecture(),
    boundingSet: boundingSet(status),
    noFile: noFileLimit(limits),
    oomScoreAdj: Number(oom.trim()),
    swapLimit:
      existsSync("/sys/fs/cgroup/cgroup.controllers") ||
      existsSync("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
  };
}

/**
 * Pid of the daemon a client speaks to, when it says so (1.7 and later) and is in our own pid namespace; else undefined.
 */
export async function daemonPidOf(
  services: Pick<ContainerdServices, "introspection">,
): Promise<number | undefined> {
  const { pid, pidns } = await services.introspection.server({});
  if (pid === 0n) return undefined;
  const own = await stat("/proc/self/ns/pid", { bigint: true });
  return own.ino === pidns ? Number(pid) : undefined;
}

/** Names in the `CapBnd` line of a /proc/PID/status. */
export function boundingSet(status: string): string[] {
  const mask = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  return CAPABILITY_NAMES.filter((_, bit) => (mask & (1n << BigInt(bit))) !== 0n);
}

/** The hard limit in the open files line of a /proc/PID/limits. */
export function noFileLimit(limits: string): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return hard === undefined || hard === "unlimited" ? Number.MAX_SAFE_INTEGER : Number(hard);
}

function architecture(): Machine["architecture"] {
  const name = arch();
  if (name === "x64") return "amd64";
  if (name === "arm64") return "arm64";
  throw new Fault("failed_precondition", `Cannot run bots on ${name}: only x64 and arm64 are supported`);
}
