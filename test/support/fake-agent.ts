// A ContainerService made of hand-written handlers behind a real gRPC server, to say what a real agent would not.

import { ContainerService } from "../../src/gen/proto/mcpcontainer/container_pb.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { type Handlers, RpcServer, type ServerTls } from "../../src/rpc/server.ts";

export const BOT = "0b0e5c1e-0000-4000-8000-000000000001";
export const OTHER_BOT = "0b0e5c1e-0000-4000-8000-000000000002";

export type AgentHandlers = Handlers<typeof ContainerService>;

export interface FakeAgent extends AsyncDisposable {
  readonly port: number;
  readonly target: string;
  /** How often Hello was asked. */
  readonly hellos: () => number;
}

export interface FakeAgentOptions {
  readonly botId?: string;
  readonly bootId?: string;
  readonly tls?: ServerTls;
  readonly port?: number;
  /** Knows no Hello, as agents of the original. */
  readonly old?: boolean;
}

/** Listens on loopback and answers Hello as this bot and boot, unless the handlers do. */
export async function fakeAgent(
  handlers: AgentHandlers = {},
  options: FakeAgentOptions = {},
): Promise<FakeAgent> {
  const server = new RpcServer({ log: silentLogger() });
  let hellos = 0;
  const hello = async () => {
    hellos++;
    return await Promise.resolve({ botId: options.botId ?? BOT, bootId: options.bootId ?? "boot-1" });
  };
  server.add(ContainerService, { ...(options.old === true ? {} : { hello }), ...handlers });
  const port = await server.listen(`127.0.0.1:${options.port ?? 0}`, options.tls);
  return {
    port,
    target: `127.0.0.1:${port}`,
    hellos: () => hellos,
    [Symbol.asyncDispose]: async () => {
      await server.close(0);
    },
  };
}
