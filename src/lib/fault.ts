// The one error class of memoh and the one table that says what each code is elsewhere.

/** What a code means in the three worlds an error can leave memoh through. */
interface CodeMeaning {
  /** gRPC status number (https://grpc.io/docs/guides/status-codes/). */
  readonly grpc: number;
  /** HTTP status. */
  readonly http: number;
  /** Exit status of the CLI: sysexits where one fits, 125 is memoh's own failure (as in `docker run`). */
  readonly exit: number;
}

/** The sixteen gRPC error codes as snake_case strings. The only code table in the project. */
export const CODES = {
  cancelled: { grpc: 1, http: 499, exit: 130 },
  unknown: { grpc: 2, http: 500, exit: 125 },
  invalid_argument: { grpc: 3, http: 400, exit: 64 },
  deadline_exceeded: { grpc: 4, http: 504, exit: 124 },
  not_found: { grpc: 5, http: 404, exit: 66 },
  already_exists: { grpc: 6, http: 409, exit: 73 },
  permission_denied: { grpc: 7, http: 403, exit: 77 },
  resource_exhausted: { grpc: 8, http: 429, exit: 75 },
  failed_precondition: { grpc: 9, http: 409, exit: 78 },
  aborted: { grpc: 10, http: 409, exit: 75 },
  out_of_range: { grpc: 11, http: 400, exit: 65 },
  unimplemented: { grpc: 12, http: 501, exit: 69 },
  internal: { grpc: 13, http: 500, exit: 70 },
  unavailable: { grpc: 14, http: 503, exit: 69 },
  data_loss: { grpc: 15, http: 500, exit: 74 },
  unauthenticated: { grpc: 16, http: 401, exit: 77 },
} as const satisfies Record<string, CodeMeaning>;

/** A stable error code. */
export type Code = keyof typeof CODES;

/** Everything a Fault can carry besides its code and message. */
export interface FaultOptions {
  /** What the reader can do about it: one sentence, imperative. */
  readonly hint?: string | undefined;
  /** The error underneath. It is logged and never sent. */
  readonly cause?: unknown;
  /** Overrides the HTTP status of the code, for the few routes where HTTP is finer (413, 416, 423…). */
  readonly http?: number | undefined;
}

/**
 * An error with a stable code, a message for people ("Cannot X: why", no final period) and a hint that says what to do
 * next. Throw it wherever a caller could act on the difference; anything else becomes `internal` at the edge.
 */
export class Fault extends Error {
  override readonly name = "Fault";
  readonly code: Code;
  readonly hint: string | undefined;
  readonly httpStatus: number;

  constructor(code: Code, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.httpStatus = options.http ?? CODES[code].http;
  }

  /** Whether the value is a Fault, optionally with one of the given codes. */
  static is(value: unknown, ...codes: Code[]): value is Fault {
    return value instanceof Fault && (codes.length === 0 || codes.includes(value.code));
  }

  /**
   * Turns anything thrown into a Fault and never throws itself. Faults pass unchanged, an AbortError becomes
   * `cancelled`, a TimeoutError `deadline_exceeded`, the rest `internal` with the original as cause.
   */
  static from(value: unknown, context?: string): Fault {
    if (value instanceof Fault) return value;
    const prefix = context === undefined ? "" : `${context}: `;
    if (value instanceof Error) {
      if (value.name === "AbortError") {
        return new Fault("cancelled", `${prefix}the operation was cancelled`, { cause: value });
      }
      if (value.name === "TimeoutError") {
        return new Fault("deadline_exceeded", `${prefix}the time limit was reached`, { cause: value });
      }
      return new Fault("internal", `${prefix}${value.message}`, { cause: value });
    }
    return new Fault("internal", `${prefix}${String(value)}`, { cause: value });
  }
}

const BY_GRPC = new Map<number, Code>(
  Object.entries(CODES).map(([code, meaning]) => [meaning.grpc, code as Code]),
);

/** The code of a gRPC status number; `unknown` for numbers gRPC does not define. */
export function codeFromGrpc(status: number): Code {
  return BY_GRPC.get(status) ?? "unknown";
}
