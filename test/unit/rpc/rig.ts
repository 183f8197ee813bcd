// A gRPC server with handlers of the test and a channel to it, over a unix socket or loopback TCP.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContainerService } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { createLogger } from "../../../src/lib/log.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import type { RpcClient } from "../../../src/rpc/client.ts";
import { type Handlers, RpcServer, type ServerOptions } from "../../../src/rpc/server.ts";

export type RigHandlers = Handlers<typeof ContainerService>;

export interface Rig extends AsyncDisposable {
  readonly server: RpcServer;
  readonly target: string;
  readonly client: RpcClient<typeof ContainerService>;
  readonly lines: readonly string[];
}

export async function rpcRig(
  handlers: RigHandlers,
  options: { readonly tcp?: boolean; readonly server?: Partial<ServerOptions> } = {},
): Promise<Rig> {
  await using stack = new AsyncDisposableStack();
  const lines: string[] = [];
  const log = createLogger({ level: "debug", format: "json", write: (line) => void lines.push(line) });
  const server = stack.use(new RpcServer({ log, ...options.server }));
  // A service must offer something.
  server.add(ContainerService, { hello: () => Promise.resolve({}), ...handlers });
  let target: string;
  if (options.tcp === true) target = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;
  else {
    const dir = await mkdtemp(join(tmpdir(), "memoh-rpc-"));
    stack.defer(async () => {
      await rm(dir, { recursive: true, force: true });
    });
    target = `unix:${join(dir, "s")}`;
    await server.listen(target);
  }
  const channel = stack.use(new RpcChannel({ target }));
  const owned = stack.move();
  return {
    server,
    target,
    lines,
    client: channel.client(ContainerService),
    [Symbol.asyncDispose]: async () => {
      await owned[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when the condition holds; the test's own time limit ends a wait in vain. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) {
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, 5);
    await promise;
  }
}

export function bytes(size: number, fill = 7): Uint8Array {
  return Buffer.alloc(size, fill);
}
