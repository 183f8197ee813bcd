// The rpcs about the agent itself: Hello, Health and Logs.
import type { Health, Hello } from "../core/workspace.ts";
import type { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import type { Handlers } from "../rpc/server.ts";
import type { LogRing } from "./log-ring.ts";

export interface System {
  readonly hello: Hello;
  health(): Health;
  readonly ring: LogRing;
}

/** Handlers to be offered together with those of files and processes. */
export function systemHandlers(
  system: System,
): Required<Pick<Handlers<typeof ContainerService>, "hello" | "health" | "logs">> {
  return {
    hello: () => Promise.resolve({ ...system.hello, capabilities: [...system.hello.capabilities] }),
    health: () => {
      const { uptimeMs, rssBytes, processes } = system.health();
      return Promise.resolve({ uptimeMs: BigInt(uptimeMs), rssBytes: BigInt(rssBytes), processes });
    },
    logs: async function* ({ tailLines, follow }, { signal }) {
      for await (const data of system.ring.read({ tailLines, follow, signal })) yield { data };
    },
  };
}
