// Programs in a root file system of their own, as a container would run them but without a container runtime.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";

/** A root file system with mount points and nothing else; removed after the test. */
export function emptyRoot(t: TestContext): string {
  const root = mkdtempSync(join(tmpdir(), "memoh-root-"));
  t.after(() => {
    rmSync(root, { recursive: true, force: true });
  });
  for (const name of ["proc", "opt/memoh", "run", "data"]) mkdirSync(join(root, name), { recursive: true });
  return root;
}

/**
 * Program and arguments for `spawn`: /proc, an empty environment and mounts of its own, in processes that end with it.
 * @param bundle mounted read-only at /opt/memoh; undefined leaves what the root has there
 */
export function inRoot(
  root: string,
  bundle: string | undefined,
  argv: readonly string[],
): [program: string, args: string[]] {
  const script = `mount -t proc proc "$0/proc" &&
    { test -z "$1" || { mount --bind "$1" "$0/opt/memoh" && mount -o remount,ro,bind "$0/opt/memoh"; }; } &&
    root=$0 && shift && exec env -i /usr/sbin/chroot "$root" "$@"`;
  return [
    "unshare",
    ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, root, bundle ?? "", ...argv],
  ];
}
