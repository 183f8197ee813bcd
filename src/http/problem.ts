// Errors over HTTP: application/problem+json (RFC 9457) with the stable code, and the original's `message` beside it.
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";

/** The body of every error. */
export interface Problem {
  readonly type: "about:blank";
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** One of the sixteen codes. */
  readonly code: string;
  /** Same as detail: what clients of the original read. */
  readonly message: string;
  readonly hint?: string;
  /** Finds the cause in the log. */
  readonly reference?: string;
}

/** The problem a Fault leaves as. The cause of an internal one goes to the log under a reference. */
export function problemOf(error: unknown, log: Logger): Problem {
  const fault = Fault.from(error);
  let reference: string | undefined;
  if (fault.code === "internal" || fault.code === "unknown") {
    reference = crypto.randomUUID().slice(0, 8);
    log.error({ err: error, reference }, "request failed");
  }
  const detail = reference === undefined ? fault.message : `${fault.message} (reference ${reference})`;
  return {
    type: "about:blank",
    title: fault.code.replaceAll("_", " "),
    status: fault.httpStatus,
    detail,
    code: fault.code,
    message: detail,
    ...(fault.hint === undefined ? {} : { hint: fault.hint }),
    ...(reference === undefined ? {} : { reference }),
  };
}

/** The same as a response. */
export function problemResponse(problem: Problem): Response {
  return new Response(JSON.stringify(problem), {
    status: problem.status,
    headers: { "content-type": "application/problem+json", "cache-control": "no-store" },
  });
}
