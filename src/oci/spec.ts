// The OCI runtime spec of a bot's container: what runs, what it may do, what it sees, what it may use.
import { Fault } from "../lib/fault.ts";
import type { LinuxResources, RuntimeSpec, SpecMount } from "./runtime-spec.ts";
import { type Architecture, seccompProfile } from "./seccomp.ts";

/** What the machine (and the daemon on it) can give. */
export interface Machine {
  readonly architecture: Architecture;
  /** Capabilities the daemon itself may pass on. */
  readonly boundingSet: readonly string[];
  /** Hard limit of open files the daemon may pass on. */
  readonly noFile: number;
  /** The daemon's own oom_score_adj: without CAP_SYS_RESOURCE nothing below it can be set. */
  readonly oomScoreAdj: number;
  /** Whether the kernel can limit swap (always on cgroup v2; a boot option on v1). */
  readonly swapLimit: boolean;
}

/** Limits of one container; absent is none. */
export interface SpecLimits {
  /** Bytes, swap included. */
  readonly memory?: number;
  readonly pids?: number;
  /** Cores. */
  readonly cpus?: number;
}

export interface SpecInput {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly hostname: string;
  readonly netnsPath: string;
  /** `/<parent>/<container id>`, the same in cgroup v1 and v2. */
  readonly cgroupsPath: string;
  readonly limits: SpecLimits;
  /** Files and directories of the host, mounted read-only after everything else. */
  readonly readOnlyMounts: readonly { readonly source: string; readonly target: string }[];
}

/**
 * What root inside keeps, for packages to install and daemons to drop privileges. Out, beside everything
 * administrative: NET_RAW (forged packets on the bridge; ping works through ping_group_range), MKNOD (FIFOs need none),
 * SETFCAP (file capabilities have no effect without new privileges).
 */
const CAPABILITIES = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_NET_BIND_SERVICE",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];

const MASKED_PATHS = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/** In the bot's own network namespace: ping without NET_RAW, low ports for anyone, as Docker does. */
const SYSCTL = {
  "net.ipv4.ping_group_range": "0 2147483647",
  "net.ipv4.ip_unprivileged_port_start": "0",
};

/** Enough for servers and file watchers; programs that close every possible descriptor stay quick. */
const NOFILE = 65_536;
/** A bot dies before the services of the host (0) do; its commands, raised further by the agent, before the agent. */
const OOM_SCORE_ADJ = 100;
const CPU_PERIOD_US = 100_000;
const MIB = 1 << 20;

/** The spec of a container. @throws Fault invalid_argument */
export function runtimeSpec(input: SpecInput, machine: Machine): RuntimeSpec {
  if (input.args.length === 0)
    throw new Fault("invalid_argument", "Cannot make a container that runs nothing");
  const capabilities = CAPABILITIES.filter((name) => machine.boundingSet.includes(name));
  const noFile = Math.min(NOFILE, machine.noFile);
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: input.args,
      env: Object.entries(input.env).map(([name, value]) => `${name}=${value}`),
      cwd: "/",
      capabilities: {
        bounding: capabilities,
        effective: capabilities,
        permitted: capabilities,
        inheritable: [],
        ambient: [],
      },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: noFile, soft: noFile }],
      noNewPrivileges: true,
      oomScoreAdj: Math.max(OOM_SCORE_ADJ, machine.oomScoreAdj),
    },
    root: { path: "rootfs", readonly: false },
    hostname: input.hostname,
    mounts: [...baseMounts(input.limits.memory), ...input.readOnlyMounts.map(readOnlyBind)],
    linux: {
      cgroupsPath: input.cgroupsPath,
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "cgroup" },
        { type: "network", path: input.netnsPath },
      ],
      resources: {
        // The runtime adds the harmless ones (null, zero, full, random, urandom, tty, ptmx).
        devices: [{ allow: false, access: "rwm" }],
        ...linuxResources(input.limits, machine),
      },
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
      seccomp: seccompProfile(machine.architecture),
      sysctl: SYSCTL,
    },
  };
}

/** The limits as the runtime takes them. */
export function linuxResources(limits: SpecLimits, machine: Machine): LinuxResources {
  const { memory, pids, cpus } = limits;
  return {
    ...(memory === undefined ? {} : { memory: memoryLimit(memory, machine) }),
    ...(pids === undefined ? {} : { pids: { limit: pids } }),
    ...(cpus === undefined
      ? {}
      : { cpu: { quota: Math.max(1_000, Math.round(cpus * CPU_PERIOD_US)), period: CPU_PERIOD_US } }),
  };
}

/** The body of a live update: what has no limit is set free. */
export function resourcesUpdate(limits: SpecLimits, machine: Machine): LinuxResources {
  return {
    memory: memoryLimit(-1, machine),
    pids: { limit: -1 },
    cpu: { quota: -1, period: CPU_PERIOD_US },
    ...linuxResources(limits, machine),
  };
}

/** Memory and swap together have the one limit: a greedy bot ends early instead of grinding the disk. */
function memoryLimit(limit: number, machine: Machine): { limit: number; swap?: number } {
  return machine.swapLimit ? { limit, swap: limit } : { limit };
}

function baseMounts(memory: number | undefined): SpecMount[] {
  // Browsers want much; it counts as the bot's memory, so half of that is safe.
  const shm = memory === undefined ? 256 * MIB : Math.max(16 * MIB, Math.floor(memory / 2));
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${shm}`],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    // Programs size their heaps and pools by the limits they read here.
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
    {
      destination: "/run",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "nodev", "strictatime", "mode=755", "size=65536k"],
    },
  ];
}

/** Executable, because the agent is one of them; never recursive, so that nothing mounted below comes along. */
function readOnlyBind(mount: { source: string; target: string }): SpecMount {
  return {
    destination: mount.target,
    type: "bind",
    source: mount.source,
    options: ["bind", "ro", "nosuid", "nodev", "rprivate"],
  };
}
