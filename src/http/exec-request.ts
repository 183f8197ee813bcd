// A command as it comes over HTTP, one-shot or on a socket.
import { z } from "zod";
import type { ExecSpec } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";

const SIZE = z.object({
  cols: z.number().int().min(1).max(10_000),
  rows: z.number().int().min(1).max(10_000),
});

export const EXEC = z.object({
  /** A shell line… */
  command: z.string().optional(),
  /** …or an argument vector. */
  argv: z.array(z.string()).optional(),
  work_dir: z.string().optional(),
  env: z.record(z.string(), z.string()).optional(),
  clean_env: z.boolean().optional(),
  unset_env: z.array(z.string()).optional(),
  /** Seconds; none when absent. */
  timeout: z.number().positive().max(31_536_000).optional(),
  pty: SIZE.optional(),
  stdin: z.string().optional(),
  stdin_b64: z.string().optional(),
  /** Bytes kept of each stream of a one-shot command. */
  max_output: z
    .number()
    .int()
    .min(1)
    .max(64 << 20)
    .optional(),
});

export type ExecRequest = z.infer<typeof EXEC>;

/** @throws Fault invalid_argument when there is no command, or two */
export function specOf(request: ExecRequest, signal: AbortSignal): ExecSpec {
  const { command, argv } = request;
  if ((command === undefined || command === "") === (argv === undefined || argv.length === 0)) {
    throw new Fault("invalid_argument", "command is required", { hint: "Give either command or argv" });
  }
  return {
    signal,
    command: argv !== undefined && argv.length > 0 ? argv : (command ?? ""),
    ...(request.work_dir === undefined || request.work_dir === "" ? {} : { cwd: request.work_dir }),
    ...(request.env === undefined ? {} : { env: request.env }),
    ...(request.clean_env === undefined ? {} : { cleanEnv: request.clean_env }),
    ...(request.unset_env === undefined ? {} : { unsetEnv: request.unset_env }),
    ...(request.timeout === undefined ? {} : { timeoutMs: request.timeout * 1000 }),
    ...(request.pty === undefined ? {} : { pty: request.pty }),
  };
}

export const RESIZE = SIZE;
