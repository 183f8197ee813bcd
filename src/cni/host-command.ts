// Foreign world: the host's network programs (iproute2, iptables, util-linux), their ends turned into Faults.
import { type CommandResult, runCommand } from "../lib/command.ts";
import { Fault } from "../lib/fault.ts";
import { withDeadline } from "../lib/signal.ts";

/** The Debian package a program comes in. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  bridge: "iproute2",
  nsenter: "util-linux",
  unshare: "util-linux",
  mount: "mount",
  umount: "mount",
};

const DENIED = /Operation not permitted|Permission denied|must be root/i;
const READ_ONLY = /Read-only file system/i;
const UNSUPPORTED = /not supported|can't initialize|does not exist \(do you need to insmod|by that name/i;

/** Milliseconds for one program that only talks to the kernel. iptables may wait for its lock. */
const LIMIT = 15_000;

/**
 * Runs a program of the host that must succeed.
 * @returns its stdout
 * @throws Fault failed_precondition naming the package that is missing, permission_denied, internal with its words
 */
export async function hostCommand(
  argv: readonly string[],
  options: { readonly input?: string; readonly signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const program = argv[0] ?? "";
  using limit = withDeadline(options.signal, LIMIT, `Cannot finish ${argv.slice(0, 3).join(" ")}`);
  let result: CommandResult;
  try {
    result = await runCommand(argv, {
      group: true,
      signal: limit.signal,
      ...(options.input === undefined ? {} : { input: options.input }),
    });
  } catch (error) {
    if (!Fault.is(error, "not_found")) throw error;
    const missing = PACKAGES[program] ?? "iptables";
    throw new Fault("failed_precondition", `Cannot run ${program}: it is not installed`, {
      cause: error,
      hint: `Install the package ${missing} (apt-get install ${missing})`,
    });
  }
  if (result.code !== 0) throw failed(argv, result);
  return result.stdout;
}

function failed(argv: readonly string[], result: CommandResult): Fault {
  const said = (result.stderr.trim() || result.stdout.trim()).slice(-1000);
  const message = `Cannot run ${argv.slice(0, 3).join(" ")}: ${said === "" ? `it ended with ${result.code}` : said}`;
  if (READ_ONLY.test(said)) {
    return new Fault("failed_precondition", message, {
      hint: "Give the host a writable /proc/sys and /sys (a privileged container if it is in one)",
    });
  }
  if (DENIED.test(said)) {
    return new Fault("permission_denied", message, {
      hint: "Run memoh host as root, with the right to administer the network (CAP_NET_ADMIN, CAP_SYS_ADMIN)",
    });
  }
  if (UNSUPPORTED.test(said)) {
    return new Fault("failed_precondition", message, {
      hint: "Use a kernel with veth, bridge and netfilter (iptables with conntrack and MASQUERADE)",
    });
  }
  return new Fault("internal", message);
}
