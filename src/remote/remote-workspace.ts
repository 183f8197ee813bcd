// The workspace contract spoken to an agent far away.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ExecSpec,
  Execution,
  FileEntry,
  Health,
  Hello,
  Listing,
  ListOptions,
  TextPage,
  TreeReader,
  TreeWritten,
  Wait,
  Workspace,
  WorkspacePath,
} from "../core/workspace.ts";
import type { WriteRawChunkSchema, WriteRawResponse } from "../gen/proto/mcpcontainer/container_pb.ts";
import { deadline } from "../lib/signal.ts";
import { type CallOptions, opened, type ServerStream } from "../rpc/client.ts";
import { agentFault, garbage } from "./agent-fault.ts";
import { checkEntry, checkHealth, checkHello, checkListing, checkPage, count } from "./answers.ts";
import { ByteStream } from "./byte-stream.ts";
import { RemoteExecution } from "./execution.ts";
import type { AgentClient, Lease, Route } from "./route.ts";
import { treeReader, treeUpload, treeWritten } from "./tree.ts";
import { upload } from "./upload.ts";
import { CHUNK, execInput, int32, int64, recut, wirePath } from "./wire.ts";

/** Milliseconds a call may take when nobody says otherwise. The caller's signal can only shorten it. */
const QUICK = 30_000;
/** Calls whose work grows with the size of a file or directory. */
const LONG = 120_000;
/** Removing a large tree. */
const REMOVE = 600_000;

/** Content up to this size travels in one message, more of it in a stream. */
const SMALL_FILE = 1 << 20;

type WriteRawMessage = MessageInitShape<typeof WriteRawChunkSchema>;

export class RemoteWorkspace implements Workspace {
  readonly #route: Route;

  constructor(route: Route) {
    this.#route = route;
  }

  async hello(wait?: Wait): Promise<Hello> {
    const answer = await this.#call(wait, QUICK, async (agent, options) => await agent.hello({}, options));
    return checkHello(answer, this.#botId);
  }

  async health(wait?: Wait): Promise<Health> {
    const answer = await this.#call(wait, QUICK, async (agent, options) => await agent.health({}, options));
    return checkHealth(answer, this.#botId);
  }

  async *logs(
    options: Wait & { readonly tailLines?: number; readonly follow?: boolean } = {},
  ): AsyncGenerator<Uint8Array, void> {
    const request = {
      tailLines: int32(options.tailLines, "a number of lines"),
      follow: options.follow ?? false,
    };
    using lease = await this.#route.lease(options);
    try {
      // A log that is followed may stay silent for ever, so nothing here has a deadline.
      for await (const chunk of lease.client.logs(request, { signal: lease.signal })) yield chunk.data;
    } catch (error) {
      throw agentFault(error, this.#botId, lease.signal);
    }
  }

  async readText(
    path: WorkspacePath,
    options: Wait & { readonly lineOffset?: number; readonly lines?: number } = {},
  ): Promise<TextPage> {
    const request = {
      ...wirePath(path),
      lineOffset: int32(options.lineOffset, "a line number"),
      nLines: int32(options.lines, "a number of lines"),
    };
    const answer = await this.#call(options, LONG, async (agent, o) => await agent.readFile(request, o));
    return checkPage(answer, this.#botId);
  }

  async writeFile(path: WorkspacePath, content: Uint8Array, wait?: Wait): Promise<void> {
    if (content.length > SMALL_FILE) {
      await this.writeRaw(path, once(content), wait);
      return;
    }
    const request = { ...wirePath(path), content };
    await this.#call(wait, LONG, async (agent, options) => await agent.writeFile(request, options));
  }

  async list(path: WorkspacePath, options: ListOptions = {}): Promise<Listing> {
    const request = {
      ...wirePath(path),
      recursive: options.recursive ?? false,
      offset: int32(options.offset, "an offset"),
      limit: int32(options.limit, "a limit"),
      maxEntries: int32(options.maxEntries, "a number of entries"),
    };
    const answer = await this.#call(options, LONG, async (agent, o) => await agent.listDir(request, o));
    return checkListing(answer, this.#botId, request);
  }

  async stat(path: WorkspacePath, options: Wait & { readonly noFollow?: boolean } = {}): Promise<FileEntry> {
    const request = { ...wirePath(path), noFollow: options.noFollow ?? false };
    const { entry } = await this.#call(options, QUICK, async (agent, o) => await agent.stat(request, o));
    if (entry === undefined) throw garbage(this.#botId, "no entry for a file it found");
    return checkEntry(entry, this.#botId, "any");
  }

  async mkdir(path: WorkspacePath, wait?: Wait): Promise<void> {
    const request = wirePath(path);
    await this.#call(wait, QUICK, async (agent, options) => await agent.mkdir(request, options));
  }

  async rename(from: WorkspacePath, to: WorkspacePath, wait?: Wait): Promise<void> {
    const [old, next] = [wirePath(from), wirePath(to)];
    const request = {
      oldPath: old.path,
      oldPathRaw: old.pathRaw,
      newPath: next.path,
      newPathRaw: next.pathRaw,
    };
    await this.#call(wait, QUICK, async (agent, options) => await agent.rename(request, options));
  }

  async remove(path: WorkspacePath, options: Wait & { readonly recursive?: boolean } = {}): Promise<void> {
    const request = { ...wirePath(path), recursive: options.recursive ?? false };
    const limit = request.recursive ? REMOVE : QUICK;
    await this.#call(options, limit, async (agent, o) => await agent.deleteFile(request, o));
  }

  async readRaw(
    path: WorkspacePath,
    options: Wait & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<AsyncIterable<Uint8Array>> {
    const length = options.length ?? 0;
    const request = {
      ...wirePath(path),
      offset: int64(options.offset, "an offset"),
      length: int64(length, "a length"),
    };
    const botId = this.#botId;
    let left = length > 0 ? length : Number.POSITIVE_INFINITY;
    return await this.#download(
      options,
      (agent, o) => agent.readRaw(request, o),
      (stream, lease) =>
        new ByteStream({
          stream,
          lease,
          botId,
          take: ({ data }) => {
            left -= data.length;
            if (left < 0) throw garbage(botId, "more bytes than were asked for");
            return data;
          },
        }),
    );
  }

  async writeRaw(path: WorkspacePath, source: AsyncIterable<Uint8Array>, wait?: Wait): Promise<number> {
    let sent = 0;
    async function* rest() {
      for await (const data of recut(source)) {
        sent += data.length;
        yield { data };
      }
    }
    // The path travels ahead of the data, so that an empty source makes an empty file.
    const content = {
      first: { ...wirePath(path), needsCommit: true },
      rest: rest(),
      last: { commit: true },
      abort: { abort: true },
    };
    const answer = await upload<WriteRawMessage, WriteRawResponse>(
      this.#route,
      wait,
      content,
      async (agent, messages, options) => await agent.writeRaw(messages, options),
    );
    const written = count(answer.bytesWritten, this.#botId, "byte count");
    if (written !== sent) throw garbage(this.#botId, `${written} bytes written of ${sent} sent`);
    return written;
  }

  async readTree(path: WorkspacePath, wait?: Wait): Promise<TreeReader> {
    const request = wirePath(path);
    return await this.#download(
      wait,
      (agent, options) => agent.readTree(request, options),
      (stream, lease) => treeReader(stream, lease, this.#botId),
    );
  }

  async writeTree(
    path: WorkspacePath,
    data: AsyncIterable<Uint8Array>,
    options: Parameters<Workspace["writeTree"]>[2] = {},
  ): Promise<TreeWritten> {
    const content = treeUpload(path, data, options);
    const answer = await upload(this.#route, options, content, async (agent, messages, o) => {
      return await agent.writeTree(messages, o);
    });
    return treeWritten(answer, this.#botId);
  }

  async exec(spec: ExecSpec): Promise<Execution> {
    const first = execInput(spec);
    const lease = await this.#route.lease(spec);
    const stream = lease.client.exec({ signal: lease.signal });
    releaseWhenOver(stream.responses, lease);
    try {
      await stream.write(first);
      await deadline(lease.signal, QUICK, `start of a command in bot ${this.#botId}`, async () => {
        await stream.responses.accepted;
      });
      return new RemoteExecution(stream, lease, { botId: this.#botId, terminal: spec.pty !== undefined });
    } catch (error) {
      await stream[Symbol.asyncDispose]();
      throw agentFault(error, this.#botId, lease.signal);
    }
  }

  get #botId(): string {
    return this.#route.botId;
  }

  /** One unary call under a deadline that travels to the agent. */
  async #call<T>(
    wait: Wait | undefined,
    timeoutMs: number,
    work: (agent: AgentClient, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    using lease = await this.#route.lease(wait);
    try {
      return await work(lease.client, { signal: lease.signal, timeoutMs });
    } catch (error) {
      throw agentFault(error, this.#botId, lease.signal);
    }
  }

  /** Opens a stream of bytes: what fails before the first of them is thrown here. */
  async #download<M, T>(
    wait: Wait | undefined,
    start: (agent: AgentClient, options: CallOptions) => ServerStream<M>,
    wrap: (stream: ServerStream<M>, lease: Lease) => T,
  ): Promise<T> {
    const lease = await this.#route.lease(wait);
    const stream = start(lease.client, { signal: lease.signal });
    releaseWhenOver(stream, lease);
    try {
      const first = deadline(lease.signal, QUICK, `answer of the agent of bot ${this.#botId}`, async () => {
        return await opened(stream);
      });
      return wrap(await first, lease);
    } catch (error) {
      await stream[Symbol.asyncDispose]();
      throw agentFault(error, this.#botId, lease.signal);
    }
  }
}

/** Keeps the connection in use for as long as the call is, whatever its reader does. */
function releaseWhenOver(stream: ServerStream<unknown>, lease: Lease): void {
  const release = () => {
    lease[Symbol.dispose]();
  };
  if (stream.over.aborted) release();
  else stream.over.addEventListener("abort", release, { once: true });
}

async function* once(content: Uint8Array): AsyncGenerator<Uint8Array, void> {
  for (let start = 0; start < content.length; start += CHUNK) {
    yield await Promise.resolve(content.subarray(start, start + CHUNK));
  }
}
