// The runtime spec as data: what depends on the machine, and what must never be in it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { seccompProfile } from "../../../src/oci/seccomp.ts";
import { type Machine, resourcesUpdate, runtimeSpec, type SpecInput } from "../../../src/oci/spec.ts";

const machine: Machine = {
  architecture: "amd64",
  boundingSet: ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_KILL"],
  noFile: 20_000,
  oomScoreAdj: 0,
  swapLimit: true,
};
const input: SpecInput = {
  args: ["/init", "agent"],
  env: { A: "1" },
  hostname: "bot",
  netnsPath: "/run/netns/x",
  cgroupsPath: "/memoh/mcp-1",
  limits: {},
  readOnlyMounts: [],
};

test("only wanted capabilities that the daemon has are given", () => {
  const { capabilities } = runtimeSpec(input, machine).process;
  assert.deepEqual(capabilities.bounding, ["CAP_CHOWN", "CAP_KILL"]);
  assert.deepEqual(capabilities.effective, capabilities.bounding);
  assert.deepEqual([capabilities.inheritable, capabilities.ambient], [[], []]);
});

test("open files and oom score stay within what the daemon may set", () => {
  const of = (changes: Partial<Machine>) => runtimeSpec(input, { ...machine, ...changes }).process;
  assert.deepEqual(of({}).rlimits, [{ type: "RLIMIT_NOFILE", hard: 20_000, soft: 20_000 }]);
  assert.equal(of({ noFile: 1_000_000 }).rlimits[0]?.hard, 65_536);
  assert.equal(of({}).oomScoreAdj, 100);
  assert.equal(of({ oomScoreAdj: -999 }).oomScoreAdj, 100);
  assert.equal(of({ oomScoreAdj: 500 }).oomScoreAdj, 500);
});

test("limits are given as asked, none when none is, and an update sets free what has none", () => {
  assert.deepEqual(Object.keys(runtimeSpec(input, machine).linux.resources), ["devices"]);
  const limits = { memory: 1 << 20, pids: 5, cpus: 0.25 };
  assert.deepEqual(runtimeSpec({ ...input, limits }, machine).linux.resources, {
    devices: [{ allow: false, access: "rwm" }],
    memory: { limit: 1 << 20, swap: 1 << 20 },
    pids: { limit: 5 },
    cpu: { quota: 25_000, period: 100_000 },
  });
  assert.deepEqual(resourcesUpdate({ pids: 7 }, { ...machine, swapLimit: false }), {
    memory: { limit: -1 },
    pids: { limit: 7 },
    cpu: { quota: -1, period: 100_000 },
  });
});

test("mounts of the description come last, are read-only and not recursive", () => {
  const { mounts } = runtimeSpec({ ...input, readOnlyMounts: [{ source: "/s", target: "/run/t" }] }, machine);
  const last = mounts.at(-1);
  assert.deepEqual(last, {
    destination: "/run/t",
    type: "bind",
    source: "/s",
    options: ["bind", "ro", "nosuid", "nodev", "rprivate"],
  });
  assert.ok(mounts.findIndex((mount) => mount.destination === "/run") < mounts.length - 1);
});

test("shared memory grows with the memory limit", () => {
  const shm = (memory?: number) =>
    runtimeSpec({ ...input, limits: memory === undefined ? {} : { memory } }, machine)
      .mounts.find((mount) => mount.destination === "/dev/shm")
      ?.options.at(-1);
  assert.equal(shm(), `size=${256 << 20}`);
  assert.equal(shm(2 ** 31), `size=${2 ** 30}`);
});

test("nothing to run is refused", () => {
  assert.throws(
    () => runtimeSpec({ ...input, args: [] }, machine),
    (error) => Fault.is(error, "invalid_argument"),
  );
});

test("no call is in two lists of the seccomp profile, and none that opens the machine is allowed", () => {
  for (const architecture of ["amd64", "arm64"] as const) {
    const { syscalls, defaultAction, architectures } = seccompProfile(architecture);
    assert.equal(defaultAction, "SCMP_ACT_ERRNO");
    assert.equal(architectures.length, 1);
    const plain = syscalls.filter((rule) => rule.args === undefined).flatMap((rule) => rule.names);
    assert.equal(new Set(plain).size, plain.length);
    const free = new Set(
      syscalls
        .filter((rule) => rule.action === "SCMP_ACT_ALLOW" && rule.args === undefined)
        .flatMap((rule) => rule.names),
    );
    for (const name of "mount umount2 unshare setns clone clone3 bpf keyctl socket socketcall io_uring_setup perf_event_open userfaultfd open_by_handle_at personality init_module kexec_load reboot".split(
      " ",
    )) {
      assert.ok(!free.has(name), name);
    }
    for (const name of "read write execve futex ptrace openat clock_gettime rseq epoll_pwait".split(" ")) {
      assert.ok(free.has(name), name);
    }
  }
});
