// Real processes started by the agent's exec core in a temporary directory, and looks at what is left of them.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalExecution } from "../../../src/agent/processes/execution.ts";
import { Processes, type ProcessesOptions } from "../../../src/agent/processes/processes.ts";
import type { ExecSpec, ExitStatus } from "../../../src/core/workspace.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sessionMembers } from "../../../src/lib/session.ts";

export const FIXTURES = join(import.meta.dirname, "fixtures");

export interface Rig extends AsyncDisposable {
  readonly dir: string;
  readonly processes: Processes;
  start(spec: ExecSpec): Promise<LocalExecution>;
  /** Runs to the end with this input, then an end of input. */
  run(spec: ExecSpec, input?: string | Uint8Array): Promise<Outcome>;
}

export interface Outcome {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** stdout as text. */
  readonly text: string;
  readonly status: ExitStatus;
  readonly pid: number;
}

export async function execRig(options: Partial<ProcessesOptions> = {}): Promise<Rig> {
  const dir = await mkdtemp(join(tmpdir(), "memoh-exec-"));
  const processes = new Processes({
    log: silentLogger(),
    workDir: dir,
    env: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: "/root", FIXTURES },
    times: { term: 400, drain: 400 },
    ...options,
  });
  const start = async (spec: ExecSpec) => await processes.exec(spec);
  return {
    dir,
    processes,
    start,
    run: async (spec, input) => {
      await using execution = await start(spec);
      const feeding = (async () => {
        if (input !== undefined) await execution.write(Buffer.from(input));
        await execution.end();
      })();
      const outcome = await collect(execution);
      await feeding;
      return outcome;
    },
    [Symbol.asyncDispose]: async () => {
      await processes.close(100);
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Reads to the exit, which must come once and last. */
export async function collect(execution: LocalExecution): Promise<Outcome> {
  const out: Uint8Array[] = [];
  const err: Uint8Array[] = [];
  let status: ExitStatus | undefined;
  for await (const event of execution.events) {
    if (status !== undefined) throw new Error(`${event.kind} came after the exit`);
    if (event.kind === "exit") status = event.status;
    else (event.kind === "stdout" ? out : err).push(event.data);
  }
  if (status === undefined) throw new Error("the events ended without an exit");
  const stdout = Buffer.concat(out);
  return { stdout, stderr: Buffer.concat(err), text: stdout.toString("utf8"), status, pid: execution.pid };
}

/** Output until it holds a text. */
export async function readUntil(execution: LocalExecution, text: string): Promise<string> {
  let seen = "";
  const iterator = execution.events[Symbol.asyncIterator]();
  while (!seen.includes(text)) {
    const next = await iterator.next();
    if (next.done === true || next.value.kind === "exit")
      throw new Error(`ended with ${JSON.stringify(seen)}`);
    seen += Buffer.from(next.value.data).toString("utf8");
  }
  return seen;
}

/** Resolves when it holds; the test's own time limit ends a wait in vain. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) {
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, 10);
    await promise;
  }
}

export async function sessionGone(sid: number): Promise<void> {
  await until(() => sessionMembers(sid).length === 0);
}
