// Pools over agents made by hand, for tests.
import type { Workspace } from "../../../src/core/workspace.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import type { Endpoint } from "../../../src/remote/dial.ts";
import { Pool, type PoolOptions } from "../../../src/remote/pool.ts";
import { type AgentHandlers, BOT, type FakeAgent } from "../../support/fake-agent.ts";

/** A pool whose endpoints are looked up in `where`. */
export function poolOf(where: Map<string, Endpoint>, options: Partial<PoolOptions> = {}): Pool {
  return new Pool({
    log: silentLogger(),
    endpoints: (botId) => {
      const endpoint = where.get(botId);
      if (endpoint !== undefined) return Promise.resolve(endpoint);
      return Promise.reject(new Fault("failed_precondition", `Bot ${botId} does not run`));
    },
    ...options,
  });
}

export function at(agent: FakeAgent, bootId = "boot-1", botId = BOT): [string, Endpoint] {
  return [botId, { botId, bootId, target: agent.target }];
}

/** Handlers that answer Health with a number of their own and never end a read. */
export function marked(mark: number): AgentHandlers {
  return {
    health: async () => await Promise.resolve({ processes: mark }),
    async *readRaw(_, { signal }) {
      yield { data: Buffer.from("first") };
      await sleep(60_000, signal);
    },
  };
}

export async function markOf(workspace: Workspace): Promise<number> {
  return (await workspace.health()).processes;
}
