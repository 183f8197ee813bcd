// The Exec rpc: wire messages in, a process, its events out.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ExecEvent, ExecSpec, Execution } from "../core/workspace.ts";
import {
  type ContainerService,
  type ExecInput,
  ExecOutput_Stream,
  type ExecOutputSchema,
} from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { Handlers } from "../rpc/server.ts";

/** What starts processes. */
export interface ProcessStarter {
  exec(spec: ExecSpec): Promise<Execution>;
}

/** Handlers of the process rpcs, to be offered together with those of files. */
export function processHandlers(
  processes: ProcessStarter,
): Required<Pick<Handlers<typeof ContainerService>, "exec">> {
  return {
    exec: async function* (inputs, { signal, accept }) {
      const messages = inputs[Symbol.asyncIterator]();
      const first = await messages.next();
      if (first.done === true) throw new Fault("invalid_argument", "failed to receive exec config");
      const broken = new AbortController();
      await using execution = await processes.exec({
        ...specOf(first.value),
        signal: AbortSignal.any([signal, broken.signal]),
      });
      accept();
      void feed(execution, first.value, messages).catch((error: unknown) => {
        broken.abort(Fault.from(error));
      });
      for await (const event of execution.events) yield outputOf(event);
    },
  };
}

/** The original's limit when a caller names none. */
const DEFAULT_TIMEOUT_S = 30;

function specOf(input: ExecInput): ExecSpec {
  if (input.argv.length === 0 && input.command === "") {
    throw new Fault("invalid_argument", "command is required");
  }
  const seconds = input.timeoutSeconds > 0 ? input.timeoutSeconds : DEFAULT_TIMEOUT_S;
  return {
    command: input.argv.length > 0 ? input.argv : input.command,
    cwd: input.workDirRaw.length > 0 ? input.workDirRaw : input.workDir,
    env: environmentOf(input.env),
    cleanEnv: input.cleanEnv,
    unsetEnv: input.unsetEnv,
    ...(input.pty ? { pty: { cols: input.resize?.cols || 80, rows: input.resize?.rows || 24 } } : {}),
    ...(input.noTimeout ? {} : { timeoutMs: seconds * 1_000 }),
  };
}

function environmentOf(entries: readonly string[]): Record<string, string> {
  const env = Object.create(null) as Record<string, string>;
  for (const entry of entries) {
    const at = entry.indexOf("=");
    if (at < 1) {
      throw new Fault("invalid_argument", `Cannot use the environment entry ${JSON.stringify(entry)}`, {
        hint: "Entries are KEY=VALUE",
      });
    }
    env[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return env;
}

/** Carries the client's messages to the process until the client half-closes, which ends its stdin. */
async function feed(
  execution: Execution,
  first: ExecInput,
  messages: AsyncIterator<ExecInput>,
): Promise<void> {
  await apply(execution, { ...first, resize: undefined });
  for (;;) {
    const message = await messages.next();
    if (message.done === true) break;
    await apply(execution, message.value);
  }
  await execution.end();
}

async function apply(
  execution: Execution,
  input: Pick<ExecInput, "stdinData" | "closeStdin" | "signal"> & { resize?: ExecInput["resize"] },
): Promise<void> {
  // A command that does not read, or has ended, is none of the sender's mistakes.
  if (input.stdinData.length > 0) await unless("failed_precondition", execution.write(input.stdinData));
  if (input.closeStdin) await execution.end();
  if (input.resize !== undefined) await execution.resize(input.resize);
  if (input.signal !== "") await unless("failed_precondition", execution.kill(input.signal));
}

async function unless(code: "failed_precondition", work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!Fault.is(error, code)) throw error;
  }
}

function outputOf(event: ExecEvent): MessageInitShape<typeof ExecOutputSchema> {
  switch (event.kind) {
    case "stdout":
      return { stream: ExecOutput_Stream.STDOUT, data: event.data };
    case "stderr":
      return { stream: ExecOutput_Stream.STDERR, data: event.data };
    case "exit": {
      const { code, signal, timedOut } = event.status;
      return { stream: ExecOutput_Stream.EXIT, exitCode: code, signal: signal ?? "", timedOut };
    }
  }
}
