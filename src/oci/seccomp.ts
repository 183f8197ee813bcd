// The seccomp profile of every bot: an allow list per architecture, as data.
import type { SeccompProfile, SeccompRule } from "./runtime-spec.ts";
import { ALLOWED_CALLS, ARCH_CALLS, REFUSED_CALLS } from "./seccomp-calls.ts";

/** Architectures bots run on, by their OCI names. */
export type Architecture = "amd64" | "arm64";

const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

/**
 * Native programs only. 32-bit x86 reaches sockets through socketcall, whose arguments no filter can see, and has had
 * its own kernel bugs; a 32-bit program ends with SIGSYS.
 */
const ARCHITECTURES: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ["SCMP_ARCH_X86_64"],
  arm64: ["SCMP_ARCH_AARCH64"],
};

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NAMESPACES = 0x7e020000;

/** unix, inet, inet6, netlink. Left out on purpose: packet, the kernel's crypto (alg), vsock to the hypervisor. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
const REFUSED_FAMILIES = [17, 38, 40];

/** Linux; Linux with UNAME26; the same in 32 bits; without address randomization (gdb); the query. */
const PERSONALITIES = [0, 0x20000, 8, 0x20008, 0x40000, 0xffffffff];

/**
 * Calls outside the lists answer ENOSYS, as on an older kernel, so that programs fall back: io_uring to epoll, clone3
 * (whose flags cannot be looked at) to clone.
 */
export function seccompProfile(architecture: Architecture): SeccompProfile {
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: ENOSYS,
    architectures: ARCHITECTURES[architecture],
    syscalls: [
      { names: [...ALLOWED_CALLS, ...ARCH_CALLS[architecture]], action: "SCMP_ACT_ALLOW" },
      { names: REFUSED_CALLS, action: "SCMP_ACT_ERRNO", errnoRet: EPERM },
      {
        names: ["clone"],
        action: "SCMP_ACT_ALLOW",
        args: [{ index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
      },
      // Equality only: the kernel looks at 32 bits, the filter at 64, so "not equal" could be talked round.
      ...SOCKET_FAMILIES.map(
        (family): SeccompRule => ({
          names: ["socket"],
          action: "SCMP_ACT_ALLOW",
          args: [{ index: 0, value: family, op: "SCMP_CMP_EQ" }],
        }),
      ),
      ...REFUSED_FAMILIES.map(
        (family): SeccompRule => ({
          names: ["socket"],
          action: "SCMP_ACT_ERRNO",
          errnoRet: EAFNOSUPPORT,
          args: [{ index: 0, value: family, op: "SCMP_CMP_EQ" }],
        }),
      ),
      ...PERSONALITIES.map(
        (personality): SeccompRule => ({
          names: ["personality"],
          action: "SCMP_ACT_ALLOW",
          args: [{ index: 0, value: personality, op: "SCMP_CMP_EQ" }],
        }),
      ),
    ],
  };
}
