// A client stream that is fed from a source on this side: whose fault a failure is, and how long the agent may wait.
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import { sleep } from "../lib/signal.ts";
import type { CallOptions } from "../rpc/client.ts";
import { agentFault } from "./agent-fault.ts";
import type { AgentClient, Route } from "./route.ts";
import { Watchdog } from "./watchdog.ts";

/** Longest wait for the agent to take the next message, or to answer after the last: syncing to disk can be slow. */
const STALL_MS = 300_000;

/** How long the agent has to end a call that it was told to abort, before the call is cut. */
const ABORT_MS = 1_000;

/** What is sent, in this order. */
export interface Upload<M> {
  readonly first: M;
  readonly rest: AsyncIterable<M>;
  /** Says that everything was sent. */
  readonly last?: M;
  /** Tells the agent that the rest failed on this side; without it the broken stream alone does. */
  readonly abort?: M;
}

/**
 * Sends the messages and returns the answer. An error of the source ends the call and is what is thrown, whatever the
 * agent makes of the broken stream.
 */
export async function upload<M, A>(
  route: Route,
  wait: Wait | undefined,
  content: Upload<M>,
  call: (agent: AgentClient, messages: AsyncIterable<M>, options: CallOptions) => Promise<A>,
): Promise<A> {
  using lease = await route.lease(wait);
  using watchdog = new Watchdog(lease, route.botId, STALL_MS);
  const over = Promise.withResolvers<void>();
  let failed: { readonly error: unknown } | undefined;
  async function* messages(): AsyncGenerator<M, void> {
    watchdog.begin();
    yield content.first;
    try {
      watchdog.end();
      for await (const message of content.rest) {
        watchdog.begin();
        yield message;
        watchdog.end();
      }
      watchdog.begin();
      if (content.last !== undefined) yield content.last;
    } catch (error) {
      failed = { error };
      if (content.abort !== undefined) {
        yield content.abort;
        // Cutting the stream at once would overtake the message.
        await Promise.race([over.promise, sleep(ABORT_MS, lease.signal, true)]);
      }
      throw error;
    }
  }
  let answer: A;
  try {
    answer = await call(lease.client, messages(), { signal: lease.signal });
  } catch (error) {
    if (failed !== undefined && !lease.signal.aborted) throw Fault.from(failed.error);
    throw agentFault(error, route.botId, lease.signal);
  } finally {
    over.resolve();
  }
  if (failed !== undefined) throw Fault.from(failed.error);
  return answer;
}
