// How a LastError is kept as JSON.
import type { LastError } from "../core/bot.ts";
import { CODES, type Code } from "../lib/fault.ts";
import { cleanText } from "./clean-json.ts";

/** The shape in jsonb columns; `at` is ISO 8601. */
export interface StoredError {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly step: string;
  readonly at: string;
  readonly retryable: boolean;
}

export function storedError(error: LastError): StoredError {
  return {
    code: error.code,
    message: cleanText(error.message),
    ...(error.hint === undefined ? {} : { hint: cleanText(error.hint) }),
    step: cleanText(error.step),
    at: error.at.toISOString(),
    retryable: error.retryable,
  };
}

export function lastErrorOf(stored: StoredError | null): LastError | undefined {
  if (stored === null) return undefined;
  return {
    code: isCode(stored.code) ? stored.code : "unknown",
    message: stored.message,
    ...(stored.hint === undefined ? {} : { hint: stored.hint }),
    step: stored.step,
    at: new Date(stored.at),
    retryable: stored.retryable,
  };
}

/** A code written by a newer memoh may be unknown here. */
function isCode(text: string): text is Code {
  return Object.hasOwn(CODES, text);
}
