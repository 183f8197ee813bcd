// Foreign world: errors of containerd, its shims and runc, turned into Faults by code and text.
import { type Code, Fault } from "../lib/fault.ts";

/** The call an error came from. */
export interface FailedCall {
  /** `Tasks.Create` */
  readonly method: string;
  /** Socket of the daemon. */
  readonly socket: string;
  /** Whether the deadline of the call had passed when the error came. */
  readonly late: boolean;
}

/** A text of containerd (or of runc behind it) and what it means. First match wins. */
interface Rule {
  readonly text: RegExp;
  /** Only under this code; any when absent. */
  readonly from?: Code;
  readonly to: Code;
  /** Put before containerd's own words. */
  readonly why?: string;
  readonly hint?: string;
}

const RULES: readonly Rule[] = [
  {
    text: /no space left on device|disk quota exceeded/,
    to: "resource_exhausted",
    why: "the disk is full",
    hint: "Free space on the file system of containerd's root directory and try again",
  },
  {
    text: /context deadline exceeded/,
    to: "deadline_exceeded",
  },
  {
    // Another writer of the same content is at work.
    text: /\bref .* locked/,
    from: "unavailable",
    to: "aborted",
  },
  {
    text: /ttrpc: closed|ttrpc: server closed/,
    to: "unavailable",
    why: "the container's shim ended",
    hint: "Start the container again",
  },
  {
    text: /cannot (start|delete|exec|kill|pause|resume|update|checkpoint|resize) (in |to )?an? ([a-z-]+) (process|state|container)|cannot exec in a (stopped|deleted|created|paused)/,
    from: "unknown",
    to: "failed_precondition",
  },
  {
    // The directory of the earlier task is removed under the new one.
    text: /failed to start shim: .*(start failed|shim-binary-path).*no such file or directory|getwd: no such file/,
    from: "unknown",
    to: "unavailable",
    why: "what is left of an earlier attempt is still being removed",
  },
  {
    // Two creates of one task at the same time, or remains: the second finds the first's directory or runtime state.
    text: /failed to start shim: .*(file exists|already exists)|mkdir .*: file exists|container .*already exists/,
    from: "unknown",
    to: "already_exists",
  },
  {
    text: /failed to mount.*: invalid argument/,
    to: "failed_precondition",
    why: "the root file system cannot be mounted (overlayfs takes at most 500 layers, and no overlay below it)",
    hint: "Flatten the versions of this bot, or keep containerd's root on a plain file system",
  },
  {
    // The runtime's own program, not the container's: it wrote no log to take words from.
    text: /unable to retrieve OCI runtime error \(.*\): (fork\/)?exec:? "?[^":]+"?: (executable file not found|no such file|permission denied)|runtime "[^"]*" binary not installed/,
    to: "failed_precondition",
    why: "the runtime program is not installed",
    hint: "Install runc, or configure the runtime binary that is",
  },
  {
    // It ended before it could say anything, mostly because its directory was removed under it.
    text: /unable to retrieve OCI runtime error/,
    to: "unavailable",
    why: "the runtime program ended without a word",
    hint: "Should it go on, run the runtime program by hand: it may miss a library",
  },
  {
    text: /invalid netns path|namespace path: .*no such file|stat \S*netns\S*: no such file/,
    from: "unknown",
    // The same steps again set the network up first.
    to: "aborted",
    why: "the network namespace is gone",
  },
  {
    text: /error mounting .*: (stat|lstat) \S+: no such file or directory/,
    from: "unknown",
    to: "aborted",
    why: "a file to mount into the container is gone",
  },
  {
    text: /unable to set memory limit|memory\.(limit_in_bytes|memsw\S*|max): device or resource busy/,
    from: "unknown",
    to: "failed_precondition",
    why: "the memory limit is below what is in use",
    hint: "Set a higher limit, or stop the bot first",
  },
  {
    text: /exec:? "[^"]*": |exec format error|exec \S+: no such file/,
    from: "unknown",
    to: "failed_precondition",
    why: "the container's program cannot be executed",
    hint: "Check that the image has the program and is of this machine's architecture",
  },
  {
    text: /OCI runtime (create|start) failed|error setting rlimit|unable to apply caps/,
    from: "unknown",
    to: "failed_precondition",
    why: "the runtime refused the container's settings",
    hint: "See the words of the runtime; `memoh doctor` checks what the kernel offers",
  },
];

/**
 * The Fault of a failed call to containerd. Codes that already say what happened stay (not_found, already_exists,
 * failed_precondition, invalid_argument…); texts under `unknown` are read; a containerd that does not answer is
 * `unavailable` with a hint.
 */
export function containerdFault(error: unknown, call: FailedCall): Fault {
  const fault = Fault.from(error);
  const words = wordsOf(fault);
  for (const rule of RULES) {
    if ((rule.from === undefined || rule.from === fault.code) && rule.text.test(words)) {
      return translated(
        error,
        rule.to,
        call,
        rule.why === undefined ? words : `${rule.why}: ${words}`,
        rule.hint,
      );
    }
  }
  switch (fault.code) {
    case "unavailable":
      return new Fault("unavailable", `Cannot reach containerd at ${call.socket}: ${words}`, {
        cause: error,
        hint: "Check that containerd runs and that this is its socket; the call can be tried again",
      });
    case "cancelled":
      // We did not cancel (own aborts never come here): the daemon noticed the deadline first, or is stopping.
      return translated(error, call.late ? "deadline_exceeded" : "unavailable", call, words);
    case "unimplemented":
      return translated(error, "unimplemented", call, words, "Use containerd 1.6 or later");
    case "unknown":
      return translated(error, "internal", call, words);
    default:
      return translated(error, fault.code, call, words);
  }
}

/** Without what gRPC and containerd add to every text. */
function wordsOf(fault: Fault): string {
  return fault.message
    .trim()
    .replace(/^No connection established\. Last error: (Error: )?/, "")
    .replace(/\.? Resolution note:\s*$/, "")
    .replace(/^Deadline exceeded after ([\d.]+)s.*$/, "no answer within $1 s")
    .replace(/\s*: unknown$/, "");
}

function translated(cause: unknown, code: Code, call: FailedCall, words: string, hint?: string): Fault {
  return new Fault(code, `containerd ${call.method}: ${words}`, { cause, hint });
}
