// How a call finds its way: a lease on a connection that was checked, for as long as the call lasts.
import type { Wait } from "../core/workspace.ts";
import type { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import type { Fault } from "../lib/fault.ts";
import type { RpcClient } from "../rpc/client.ts";

/** The rpcs of an agent. */
export type AgentClient = RpcClient<typeof ContainerService>;

/** A connection in use by one call. Dispose it when the call is over. */
export interface Lease extends Disposable {
  readonly client: AgentClient;
  /** Aborts with the caller's signal, and with a Fault when the connection is given up. */
  readonly signal: AbortSignal;
  /** Ends the call with this reason. */
  cancel(reason: Fault): void;
}

/** Where the calls of one bot's workspace go. */
export interface Route {
  readonly botId: string;
  /** @throws Fault when there is no agent to talk to */
  lease(wait?: Wait): Promise<Lease>;
}

/** A lease of a client. @param ended called once, when the call is over */
export function leaseOf(client: AgentClient, parent: AbortSignal | undefined, ended: () => void): Lease {
  const call = new AbortController();
  let over = false;
  const onParent = () => {
    call.abort(parent?.reason);
  };
  if (parent?.aborted === true) onParent();
  else parent?.addEventListener("abort", onParent, { once: true });
  return {
    client,
    signal: call.signal,
    cancel: (reason) => {
      call.abort(reason);
    },
    [Symbol.dispose]: () => {
      if (over) return;
      over = true;
      parent?.removeEventListener("abort", onParent);
      ended();
    },
  };
}
