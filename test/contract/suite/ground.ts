// What every test of the contract stands on: the workspace, a fresh directory, a shell to make fixtures with.
import assert from "node:assert/strict";
import type { ExecEvent, ExecSpec, Execution, ExitStatus, Workspace } from "../../../src/core/workspace.ts";
import { gather } from "../../support/pieces.ts";

/** Everything a command said, and how it ended. */
export interface Ran {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly status: ExitStatus;
}

export class Ground {
  #workspace: Workspace | undefined;
  #dir = "";
  #count = 0;

  set(workspace: Workspace, dir: string): void {
    this.#workspace = workspace;
    this.#dir = dir;
  }

  get workspace(): Workspace {
    assert.ok(this.#workspace !== undefined, "the workspace was not opened");
    return this.#workspace;
  }

  /** A new empty directory. */
  async fresh(): Promise<string> {
    const path = `${this.#dir}/t${++this.#count}`;
    await this.workspace.mkdir(path);
    return path;
  }

  /** Runs to the end. */
  async run(spec: ExecSpec): Promise<Ran> {
    await using execution = await this.workspace.exec(spec);
    return await ranOf(execution);
  }

  /** A shell line that must succeed. @returns its stdout as text */
  async sh(command: string, cwd?: string): Promise<string> {
    const { stdout, stderr, status } = await this.run({ command, ...(cwd === undefined ? {} : { cwd }) });
    assert.equal(status.code, 0, `${command}: ${stderr.toString()}`);
    return stdout.toString();
  }

  async read(path: string | Uint8Array): Promise<Buffer> {
    return await gather(await this.workspace.readRaw(path));
  }

  async text(path: string): Promise<string> {
    return (await this.read(path)).toString();
  }

  async write(path: string | Uint8Array, text: string): Promise<void> {
    await this.workspace.writeFile(path, Buffer.from(text));
  }

  async exists(path: string): Promise<boolean> {
    return (await this.run({ command: ["test", "-e", path] })).status.code === 0;
  }

  /** Whether a process with this id still runs. */
  async alive(pid: string): Promise<boolean> {
    const { stdout } = await this.run({ command: `cat /proc/${pid}/stat 2>/dev/null` });
    const state = /\) (\S)/.exec(stdout.toString())?.[1];
    return state !== undefined && state !== "Z" && state !== "X";
  }
}

/** Reads a command's events to their end and checks their form: one exit, and it comes last. */
export async function ranOf(execution: Execution): Promise<Ran> {
  const parts: Record<"stdout" | "stderr", Uint8Array[]> = { stdout: [], stderr: [] };
  const ends: ExecEvent[] = [];
  for await (const event of execution.events) {
    assert.equal(ends.length, 0, `${event.kind} after the exit`);
    if (event.kind === "exit") ends.push(event);
    else parts[event.kind].push(event.data);
  }
  const [end] = ends;
  assert.ok(end?.kind === "exit", "no exit");
  const { stdout, stderr } = parts;
  return { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr), status: end.status };
}

/** A command's output as it comes, and the first text of it that a test waits for. */
export class Listener {
  readonly #events: AsyncIterator<ExecEvent>;
  text = "";

  constructor(execution: Execution) {
    this.#events = execution.events[Symbol.asyncIterator]();
  }

  /** Reads on until the pattern is in the output. @returns the match */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.text);
      if (match !== null) return match;
      const event = await this.#next();
      assert.ok(event.kind !== "exit", `exited without ${String(pattern)}: ${this.text}`);
      this.text += Buffer.from(event.data).toString();
    }
  }

  /** The exit, after whatever output is left. */
  async exit(): Promise<ExitStatus> {
    for (;;) {
      const event = await this.#next();
      if (event.kind === "exit") return event.status;
      this.text += Buffer.from(event.data).toString();
    }
  }

  async #next(): Promise<ExecEvent> {
    const next = await this.#events.next();
    assert.ok(next.done !== true, `ended without an exit: ${this.text}`);
    return next.value;
  }
}
