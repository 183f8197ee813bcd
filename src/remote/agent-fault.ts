// What an agent says when a call fails, made safe to show: bounded, without control characters, garbage named as such.
import { Fault } from "../lib/fault.ts";
import { reasonOf } from "../lib/signal.ts";

/** Longest message or hint that is passed on. */
const MAX_TEXT = 1000;

// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g;

/** What grpc-js says of answers that are no gRPC, or no message of their kind. */
const GARBAGE =
  /^(Response message parsing error|Received message larger than max|Received HTTP status|No message received|undefined |\[object)/;

/** What grpc-js says when the transport broke under a call, rather than the agent ending it. */
const BROKEN = /^(Received RST_STREAM|Connection dropped|Call cancelled$|read ECONNRESET|write EPIPE)/;

/** Text of an agent, fit for a terminal and a log line. */
export function safeText(text: string, max = MAX_TEXT): string {
  const clean = text.replaceAll(CONTROL, " ").toWellFormed();
  return clean.length <= max ? clean : `${clean.slice(0, max)}…`;
}

/** @returns data_loss that names the bot whose agent answered nonsense */
export function garbage(botId: string, what: string, cause?: unknown): Fault {
  return new Fault("data_loss", `Cannot use the answer of the agent of bot ${botId}: ${safeText(what)}`, {
    cause,
    hint: "Restart the bot; if it happens again, what runs in it is not memoh's agent",
  });
}

/**
 * The Fault of a call that failed.
 * @param signal the call's own signal: when it aborted, its reason is the answer
 */
export function agentFault(error: unknown, botId: string, signal?: AbortSignal): Fault {
  if (signal?.aborted === true) return Fault.from(reasonOf(signal));
  const fault = Fault.from(error);
  if (GARBAGE.test(fault.message)) return garbage(botId, fault.message, error);
  if (BROKEN.test(fault.message)) {
    return new Fault("unavailable", `The connection to the agent of bot ${botId} broke`, {
      cause: error,
      hint: "Try again",
    });
  }
  if (fault.code === "deadline_exceeded" && fault.message.startsWith("Deadline exceeded after")) {
    return new Fault("deadline_exceeded", `The agent of bot ${botId} did not answer in time`, {
      cause: error,
      hint: "Try again; if the bot stays silent, restart it",
    });
  }
  return new Fault(fault.code, safeText(fault.message), {
    cause: fault.cause ?? error,
    hint: fault.hint === undefined ? undefined : safeText(fault.hint),
  });
}
