// `memoh agent`: flags and signals around runAgent.
import { loadAgentConfig } from "../config/agent-config.ts";
import { runAgent } from "./run-agent.ts";

/**
 * Runs the agent until SIGTERM or SIGINT.
 * @param argv what follows `memoh agent`
 * @returns the exit status: 0 after a stop that was asked for
 * @throws Fault when it cannot start
 */
export async function agentMain(argv: readonly string[]): Promise<number> {
  const stop = new AbortController();
  // First of all: a stop may be asked for before anything else is up.
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.on(name, () => {
      stop.abort();
    });
  }
  await runAgent(loadAgentConfig(argv), { signal: stop.signal });
  return 0;
}
