// Runs a test file as if on a host of its own: inside a network namespace, where bridges, routes and firewall are its.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mustRun } from "../../../src/lib/command.ts";

const MARK = "MEMOH_TEST_HOST";

/**
 * Defines the tests when the file already runs inside; otherwise runs the file again inside and hands its results on
 * (the same pipes, so the test runner sees the tests themselves). `/sys` and mounts are the namespace's own as well.
 */
export async function onTestHost(file: string, define: () => void): Promise<void> {
  if (process.env[MARK] !== undefined) {
    define();
    return;
  }
  const name = `memoh-test-${process.pid.toString(36)}-${Date.now().toString(36)}`;
  await mustRun(["ip", "netns", "add", name]);
  try {
    const child = spawn("ip", ["netns", "exec", name, process.execPath, ...process.execArgv, file], {
      stdio: "inherit",
      env: { ...process.env, [MARK]: name },
    });
    const stop = () => child.kill("SIGTERM");
    process.once("SIGTERM", stop);
    process.once("SIGINT", stop);
    const [code] = (await once(child, "exit")) as [number | null];
    process.exitCode = code ?? 1;
  } finally {
    await mustRun(["ip", "netns", "del", name]);
  }
}
