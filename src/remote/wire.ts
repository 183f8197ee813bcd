// Requests in the form the wire wants them: paths of any bytes, numbers in range, bytes in pieces of 256 KiB.
import type { ExecSpec, TerminalSize, WorkspacePath } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";

/** Bytes per message of a stream; what a stalled reader pins is 32 times this. */
export const CHUNK = 256 << 10;

const MAX_INT32 = 2 ** 31 - 1;

/** A path as its two fields. */
export interface WirePath {
  readonly path: string;
  /** Empty unless the path is not UTF-8. */
  readonly pathRaw: Uint8Array;
}

const NOTHING = new Uint8Array(0);
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws Fault invalid_argument when the text is no Unicode and would name another file on the wire */
export function wirePath(path: WorkspacePath): WirePath {
  if (typeof path === "string") {
    if (path.isWellFormed()) return { path, pathRaw: NOTHING };
    throw new Fault(
      "invalid_argument",
      `Cannot use the path ${JSON.stringify(path)}: it is not valid Unicode`,
      {
        hint: "Give the path as bytes",
      },
    );
  }
  try {
    return { path: strict.decode(path), pathRaw: NOTHING };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { path: Buffer.from(path).toString("utf8"), pathRaw: path };
  }
}

/** @throws Fault invalid_argument */
export function int32(value: number | undefined, what: string): number {
  if (value === undefined) return 0;
  if (Number.isInteger(value) && Math.abs(value) <= MAX_INT32) return value;
  throw new Fault("invalid_argument", `Cannot use ${value} as ${what}: it is no whole number in range`);
}

/** @throws Fault invalid_argument */
export function int64(value: number | undefined, what: string): bigint {
  if (value === undefined) return 0n;
  if (Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw new Fault("invalid_argument", `Cannot use ${value} as ${what}: it is no whole number from 0`);
}

/** @throws Fault invalid_argument */
export function wireSize(size: TerminalSize): TerminalSize {
  for (const side of [size.cols, size.rows]) {
    if (!Number.isInteger(side) || side < 1 || side > 0xffff) {
      throw new Fault("invalid_argument", `Cannot make a terminal of ${size.cols} by ${size.rows}`);
    }
  }
  return { cols: size.cols, rows: size.rows };
}

/** The first message of an Exec. @throws Fault invalid_argument */
export function execInput(spec: ExecSpec) {
  const { timeoutMs } = spec;
  const cwd = wirePath(spec.cwd ?? "");
  return {
    ...(typeof spec.command === "string" ? { command: spec.command } : { argv: [...spec.command] }),
    workDir: cwd.path,
    workDirRaw: cwd.pathRaw,
    env: Object.entries(spec.env ?? {}).map(variable),
    cleanEnv: spec.cleanEnv ?? false,
    unsetEnv: [...(spec.unsetEnv ?? [])],
    // Whole seconds on the wire: never shorter than asked for.
    ...(timeoutMs === undefined
      ? { noTimeout: true }
      : { timeoutSeconds: Math.max(1, int32(Math.ceil(timeoutMs / 1000), "a time limit in seconds")) }),
    ...(spec.pty === undefined ? {} : { pty: true, resize: wireSize(spec.pty) }),
  };
}

function variable([name, value]: [string, string]): string {
  if (name.length > 0 && !name.includes("=") && !name.includes("\0") && !value.includes("\0")) {
    return `${name}=${value}`;
  }
  throw new Fault(
    "invalid_argument",
    `Cannot set the variable ${JSON.stringify(name)}: it is no name with a text`,
    {
      hint: "A name is not empty and holds no =, neither name nor value holds a NUL",
    },
  );
}

/**
 * Cuts bytes into pieces of `CHUNK`: large ones are sliced, small ones gathered. The source gives its buffers away: they
 * must not change after they were yielded.
 */
export async function* recut(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  let held: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of source) {
    let rest = bytes;
    while (size + rest.length >= CHUNK) {
      const cut = CHUNK - size;
      const piece = rest.subarray(0, cut);
      rest = rest.subarray(cut);
      yield size === 0 ? piece : Buffer.concat([...held, piece], CHUNK);
      held = [];
      size = 0;
    }
    if (rest.length > 0) {
      held.push(rest);
      size += rest.length;
    }
  }
  if (size > 0) yield held.length === 1 && held[0] !== undefined ? held[0] : Buffer.concat(held, size);
}
