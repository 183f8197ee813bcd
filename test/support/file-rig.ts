// A work directory, the file half of the agent over it, and a client that speaks to it over a real socket.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileHandlers } from "../../src/agent/file-handlers.ts";
import { LocalFiles } from "../../src/agent/files/local-files.ts";
import { ContainerService } from "../../src/gen/proto/mcpcontainer/container_pb.ts";
import { type Code, Fault } from "../../src/lib/fault.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { RpcChannel } from "../../src/rpc/channel.ts";
import type { RpcClient } from "../../src/rpc/client.ts";
import { RpcServer } from "../../src/rpc/server.ts";

export interface FileRig extends AsyncDisposable {
  /** The work directory. */
  readonly dir: string;
  readonly files: LocalFiles;
  readonly client: RpcClient<typeof ContainerService>;
  /** A path in the work directory. */
  at(name: string): string;
}

export async function fileRig(): Promise<FileRig> {
  await using made = new AsyncDisposableStack();
  const root = await mkdtemp(join(tmpdir(), "memoh-files-"));
  const dir = join(root, "data");
  const files = new LocalFiles({ workDir: dir });
  made.defer(async () => {
    // Not node's rm: some tests make trees that are deeper than any path.
    await files.remove(root, { recursive: true });
  });
  await files.mkdir(dir);
  const server = made.use(new RpcServer({ log: silentLogger() }));
  server.add(ContainerService, fileHandlers(files));
  await server.listen(`unix:${root}/agent.sock`);
  const channel = made.use(new RpcChannel({ target: `unix:${root}/agent.sock`, window: 4 << 20 }));
  const client = channel.client(ContainerService);
  const cleanup = made.move();
  return {
    dir,
    files,
    client,
    at: (name) => join(dir, name),
    [Symbol.asyncDispose]: async () => {
      await cleanup.disposeAsync();
    },
  };
}

/** For assert.rejects: a Fault with this code and, when given, this in its message. */
export function faultOf(code: Code, message: RegExp | string = ""): (error: unknown) => boolean {
  return (error) => {
    if (!(error instanceof Fault)) throw error;
    const matches =
      typeof message === "string" ? error.message.includes(message) : message.test(error.message);
    if (error.code !== code || !matches) {
      throw new Error(`expected ${code} (${String(message)}), got ${error.code}: ${error.message}`);
    }
    return true;
  };
}

/** All bytes of a stream. */
export async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A path of text and raw bytes: `raw(dir, "a\xff")` with one character per byte. */
export function raw(directory: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(name, "latin1")]);
}
