// Workspaces given by hand: for tests, and for programs that have their connections already.
import type { Workspace, WorkspaceProvider } from "../core/workspace.ts";
import { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { RpcChannel } from "../rpc/channel.ts";
import { RemoteWorkspace } from "./remote-workspace.ts";
import { leaseOf } from "./route.ts";

/** A provider of exactly these workspaces, by bot id. */
export function staticProvider(workspaces: Iterable<readonly [string, Workspace]>): WorkspaceProvider {
  const known = new Map(workspaces);
  return {
    workspace: (botId) => {
      const workspace = known.get(botId);
      if (workspace !== undefined) return Promise.resolve(workspace);
      return Promise.reject(new Fault("not_found", `Cannot reach bot ${botId}: there is no such bot`));
    },
  };
}

/** The workspace at the other end of a channel, whoever answers there. The channel stays the caller's. */
export function workspaceOver(channel: RpcChannel, botId: string): Workspace {
  const client = channel.client(ContainerService);
  return new RemoteWorkspace({
    botId,
    lease: async (wait) => await Promise.resolve(leaseOf(client, wait?.signal, () => undefined)),
  });
}
