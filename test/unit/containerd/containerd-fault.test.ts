// What containerd, its shims and runc say, and the Fault it becomes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { containerdFault } from "../../../src/containerd/containerd-fault.ts";
import { type Code, Fault } from "../../../src/lib/fault.ts";

const call = { method: "Tasks.Create", socket: "/run/x.sock", late: false };

/** Texts seen from 1.6.20, 1.7.24 and 2.1.9 with runc 1.1.5. */
const SEEN: readonly [code: Code, text: string, becomes: Code, message: RegExp][] = [
  ["unknown", "failed to write: no space left on device", "resource_exhausted", /the disk is full/],
  ["unknown", "context deadline exceeded: unknown", "deadline_exceeded", /context deadline exceeded$/],
  ["unavailable", "ref layer-sha256:1 locked for 1s (since x)", "aborted", /locked/],
  ["unknown", "ttrpc: closed: unknown", "unavailable", /shim ended/],
  [
    "unknown",
    "cannot start a stopped process: unknown",
    "failed_precondition",
    /cannot start a stopped process$/,
  ],
  ["unknown", "cannot start a running process: unknown", "failed_precondition", /running process/],
  ["unknown", "cannot delete a running process: unknown", "failed_precondition", /running process/],
  ["unknown", "cannot exec in a stopped state: unknown", "failed_precondition", /stopped state/],
  [
    "unknown",
    "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/n/i: file exists: unknown",
    "already_exists",
    /file exists$/,
  ],
  [
    "unknown",
    "OCI runtime create failed: runc create failed: container with given ID already exists: unknown",
    "already_exists",
    /given ID already exists$/,
  ],
  [
    "unknown",
    "failed to start shim: start failed: io.containerd.runc.v2: getwd: no such file or directory: exit status 1",
    "unavailable",
    /earlier attempt is still being removed/,
  ],
  [
    "unknown",
    "failed to start shim: start failed: open /x/shim-binary-path: no such file or directory: unknown",
    "unavailable",
    /earlier attempt is still being removed/,
  ],
  [
    "unknown",
    "OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): runc did not terminate successfully: exit status 1: unknown",
    "unavailable",
    /ended without a word/,
  ],
  [
    "unknown",
    "failed to create shim task: failed to mountat rootfs: invalid argument: unknown",
    "failed_precondition",
    /at most 500 layers/,
  ],
  [
    "unknown",
    'failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): exec: "crunx": executable file not found in $PATH: unknown',
    "failed_precondition",
    /runtime program is not installed/,
  ],
  [
    "unknown",
    "OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): fork/exec /opt/crun: no such file or directory: unknown",
    "failed_precondition",
    /runtime program is not installed/,
  ],
  [
    "unknown",
    "OCI runtime create failed: runc create failed: invalid netns path: stat /run/netns/gone: no such file or directory: unknown",
    "aborted",
    /network namespace is gone/,
  ],
  [
    "unknown",
    'OCI runtime create failed: error mounting "/nope" to rootfs at "/mnt": stat /nope: no such file or directory: unknown',
    "aborted",
    /a file to mount into the container is gone/,
  ],
  [
    "unknown",
    'OCI runtime create failed: unable to start container process: exec: "/a": stat /a: no such file or directory: unknown',
    "failed_precondition",
    /program cannot be executed/,
  ],
  [
    "unknown",
    "runc did not terminate successfully: exit status 1: unable to set memory limit to 100000 (current usage: 364544)",
    "failed_precondition",
    /memory limit is below/,
  ],
  [
    "unknown",
    "OCI runtime create failed: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted: unknown",
    "failed_precondition",
    /refused the container's settings/,
  ],
  ["unknown", "something nobody has seen", "internal", /something nobody has seen$/],
  ["not_found", 'container "x" in namespace "y": not found', "not_found", /not found$/],
  ["already_exists", 'snapshot "x": already exists', "already_exists", /already exists$/],
  ["failed_precondition", "cannot remove snapshot with child", "failed_precondition", /child$/],
  [
    "deadline_exceeded",
    "Deadline exceeded after 3.001s,LB pick: 0.001s,remote_addr=/x",
    "deadline_exceeded",
    /Create: no answer within 3\.001 s$/,
  ],
  ["cancelled", "Call cancelled", "unavailable", /Call cancelled/],
  [
    "unavailable",
    "No connection established. Last error: Error: connect ENOENT /run/x.sock. Resolution note: ",
    "unavailable",
    /^Cannot reach containerd at \/run\/x\.sock: connect ENOENT \/run\/x\.sock$/,
  ],
];

for (const [code, text, becomes, message] of SEEN) {
  test(`"${text.slice(0, 70)}" (${code}) becomes ${becomes}`, () => {
    const fault = containerdFault(new Fault(code, text), call);
    assert.equal(fault.code, becomes);
    assert.match(fault.message, message);
    assert.doesNotMatch(fault.message, /: unknown$|\.$/);
  });
}

test("a cancel nobody here asked for is a deadline when the call's own had passed", () => {
  const fault = containerdFault(new Fault("cancelled", "context canceled"), { ...call, late: true });
  assert.equal(fault.code, "deadline_exceeded");
});

test("a daemon that does not answer comes with a hint", () => {
  assert.match(containerdFault(new Fault("unavailable", "x"), call).hint ?? "", /containerd runs/);
});
