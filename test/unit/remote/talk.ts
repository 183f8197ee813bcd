// A workspace that talks to hand-written handlers, or to a bare HTTP/2 server.
import assert from "node:assert/strict";
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { ExecEvent, Execution, Workspace } from "../../../src/core/workspace.ts";
import { ExecOutput_Stream } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { workspaceOver } from "../../../src/remote/provider.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { type AgentHandlers, BOT, fakeAgent } from "../../support/fake-agent.ts";

export const EXIT = ExecOutput_Stream.EXIT;

/** The least that is a file entry. */
export const GOOD_ENTRY = { path: "a", mode: "-rw-r--r--", modTime: "2026-11-23T12:00:00Z", size: 1n };

export interface Talk extends AsyncDisposable {
  readonly workspace: Workspace;
}

/** A workspace that talks to these handlers. */
export async function talk(handlers: AgentHandlers): Promise<Talk> {
  const agent = await fakeAgent(handlers);
  const channel = new RpcChannel({ target: agent.target });
  return {
    workspace: workspaceOver(channel, BOT),
    [Symbol.asyncDispose]: async () => {
      channel[Symbol.dispose]();
      await agent[Symbol.asyncDispose]();
    },
  };
}

/** A workspace that talks to a server whose every stream is answered by hand. */
export async function serverAt(
  answer: (stream: ServerHttp2Stream, headers: NodeJS.Dict<string | string[]>) => void,
): Promise<Talk> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    answer(stream, headers);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const channel = new RpcChannel({ target: `127.0.0.1:${address.port}` });
  return {
    workspace: workspaceOver(channel, BOT),
    [Symbol.asyncDispose]: async () => {
      channel[Symbol.dispose]();
      for (const session of sessions) session.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => {
        closed.resolve();
      });
      await closed.promise;
    },
  };
}

/** Every event of a command, to its end. */
export async function eventsOf(execution: Execution): Promise<ExecEvent[]> {
  const events: ExecEvent[] = [];
  for await (const event of execution.events) events.push(event);
  return events;
}
