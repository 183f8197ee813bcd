// One-shot commands: run, wait, answer with what came out.
import { z } from "zod";
import type { ExitStatus, Workspace } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";
import { bodyOf, type HttpParts, signalOf, workspaceOf } from "../context.ts";
import { EXEC, type ExecRequest, specOf } from "../exec-request.ts";
import type { RouteSpec } from "../openapi.ts";

const DEFAULT_OUTPUT = 1 << 20;

const RESULT = z.object({
  stdout: z.string(),
  stderr: z.string(),
  stdout_b64: z.string().optional(),
  stderr_b64: z.string().optional(),
  exit_code: z.number(),
  signal: z.string().nullable(),
  timed_out: z.boolean(),
  stdout_truncated: z.boolean(),
  stderr_truncated: z.boolean(),
});

/** Keeps the first `max` bytes and counts the rest. */
class Capture {
  readonly #chunks: Uint8Array[] = [];
  readonly #max: number;
  #size = 0;
  truncated = false;

  constructor(max: number) {
    this.#max = max;
  }

  add(data: Uint8Array): void {
    const room = this.#max - this.#size;
    if (data.length > room) this.truncated = true;
    if (room <= 0) return;
    const kept = data.subarray(0, room);
    this.#chunks.push(kept);
    this.#size += kept.length;
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

/** `name` as text when it is UTF-8 (a character cut at the cap aside), as base64 when not. */
function textOrBase64(name: "stdout" | "stderr", capture: Capture): Record<string, string> {
  let bytes = capture.bytes();
  if (capture.truncated) bytes = bytes.subarray(0, characterBorder(bytes));
  const text = bytes.toString("utf8");
  if (Buffer.from(text, "utf8").equals(bytes)) return { [name]: text };
  return { [name]: "", [`${name}_b64`]: capture.bytes().toString("base64") };
}

/** Length without a UTF-8 sequence that was cut at the end. */
function characterBorder(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needs > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

async function runOnce(workspace: Workspace, request: ExecRequest, signal: AbortSignal) {
  const max = request.max_output ?? DEFAULT_OUTPUT;
  const stdout = new Capture(max);
  const stderr = new Capture(max);
  await using execution = await workspace.exec(specOf(request, signal));
  const input =
    request.stdin_b64 === undefined
      ? Buffer.from(request.stdin ?? "", "utf8")
      : Buffer.from(request.stdin_b64, "base64");
  const fed = feed(execution, input);
  let status: ExitStatus | undefined;
  for await (const event of execution.events) {
    if (event.kind === "exit") ({ status } = event);
    else (event.kind === "stdout" ? stdout : stderr).add(event.data);
  }
  await fed;
  if (status === undefined) throw new Fault("unavailable", "The command was interrupted before it ended");
  return {
    ...textOrBase64("stdout", stdout),
    ...textOrBase64("stderr", stderr),
    exit_code: status.code,
    signal: status.signal ?? null,
    timed_out: status.timedOut,
    stdout_truncated: stdout.truncated,
    stderr_truncated: stderr.truncated,
  };
}

/** A command that ends without reading its input is not an error. */
async function feed(execution: Awaited<ReturnType<Workspace["exec"]>>, input: Buffer): Promise<void> {
  try {
    if (input.length > 0) await execution.write(input);
    await execution.end();
  } catch (error) {
    if (!Fault.is(error, "failed_precondition", "cancelled", "unavailable")) throw error;
  }
}

export function execRoutes({ control, limits }: HttpParts): RouteSpec[] {
  return [
    {
      method: "post",
      path: "/bots/{bot_id}/exec",
      tag: "exec",
      summary:
        "Run a command and answer with its output; streams and terminals use the WebSocket at /exec/ws",
      body: EXEC,
      answers: { 200: { description: "How it ended", schema: RESULT } },
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const request = await bodyOf(c, EXEC, limits.maxBody);
        return c.json(await runOnce(workspace, request, signalOf(c)));
      },
    },
  ];
}
