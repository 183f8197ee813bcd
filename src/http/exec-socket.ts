// Commands and terminals over a WebSocket: JSON for control, binary for bytes, backpressure both ways.
//
// Client: first a text message with the command (as POST …/exec, `pty` for a terminal); then binary messages for stdin
// and text messages {"type":"resize","cols","rows"}, {"type":"signal","signal"}, {"type":"eof"}.
// Server: binary messages whose first byte is 1 (stdout) or 2 (stderr); last a text message
// {"type":"exit","exit_code","signal","timed_out"} or {"type":"error","code","message","hint"}; then it closes.
import type { WebSocket } from "ws";
import { z } from "zod";
import type { ControlPlane } from "../core/control.ts";
import type { Execution } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { sleep } from "../lib/signal.ts";
import { reachWorkspace } from "./context.ts";
import { EXEC, RESIZE, specOf } from "./exec-request.ts";
import { problemOf } from "./problem.ts";

const CONTROL = z.discriminatedUnion("type", [
  RESIZE.extend({ type: z.literal("resize") }),
  z.object({ type: z.literal("signal"), signal: z.string() }),
  z.object({ type: z.literal("eof") }),
]);

/** Output waits while so many bytes are unsent. */
const HIGH_WATER = 1 << 20;
const START_MS = 10_000;
const PING_MS = 30_000;

/** Carries one command over one socket, from its first message to its close. */
export async function serveExecSocket(
  socket: WebSocket,
  control: ControlPlane,
  botId: string,
  log: Logger,
): Promise<void> {
  const gone = new AbortController();
  socket.on("close", () => {
    gone.abort(new Fault("cancelled", "the client closed the socket"));
  });
  // Without a listener an oversize frame would end the whole process.
  socket.on("error", (error) => {
    gone.abort(Fault.from(error));
  });
  const inbox = new Inbox(socket, gone.signal);
  const ping = setInterval(() => {
    socket.ping();
  }, PING_MS);
  try {
    const status = await run(socket, inbox, control, botId, gone.signal);
    send(socket, {
      type: "exit",
      exit_code: status.code,
      signal: status.signal ?? null,
      timed_out: status.timedOut,
    });
    socket.close(1000);
  } catch (error) {
    if (gone.signal.aborted) return;
    const { code, message, hint } = problemOf(error, log);
    send(socket, { type: "error", code, message, hint: hint ?? null });
    socket.close(1011, code);
  } finally {
    clearInterval(ping);
  }
}

async function run(socket: WebSocket, inbox: Inbox, control: ControlPlane, botId: string, gone: AbortSignal) {
  const first = await inbox.first();
  const request = EXEC.safeParse(first);
  if (!request.success) {
    throw new Fault("invalid_argument", `Cannot read the command: ${request.error.issues[0]?.message ?? ""}`);
  }
  const workspace = await reachWorkspace(control, botId, gone);
  await using execution = await workspace.exec(specOf(request.data, gone));
  const fed = feed(execution, inbox, request.data.stdin);
  try {
    for await (const event of execution.events) {
      if (event.kind === "exit") return event.status;
      await sendBytes(socket, event.kind === "stdout" ? 1 : 2, event.data, gone);
    }
    throw new Fault("unavailable", "The command was interrupted before it ended");
  } finally {
    inbox.stop();
    await fed;
  }
}

/** Client messages into the process. What comes after its end is dropped. */
async function feed(execution: Execution, inbox: Inbox, stdin: string | undefined): Promise<void> {
  try {
    if (stdin !== undefined && stdin !== "") await execution.write(Buffer.from(stdin, "utf8"));
    for await (const message of inbox.rest()) {
      if (message instanceof Uint8Array) await execution.write(message);
      else {
        const parsed = CONTROL.safeParse(message);
        if (!parsed.success) continue;
        if (parsed.data.type === "resize") await execution.resize(parsed.data);
        else if (parsed.data.type === "signal") await execution.kill(parsed.data.signal);
        else await execution.end();
      }
    }
  } catch (error) {
    if (!Fault.is(error, "failed_precondition", "cancelled", "unavailable")) throw error;
  }
}

async function sendBytes(
  socket: WebSocket,
  channel: number,
  data: Uint8Array,
  gone: AbortSignal,
): Promise<void> {
  const frame = Buffer.allocUnsafe(data.length + 1);
  frame[0] = channel;
  frame.set(data, 1);
  socket.send(frame, { binary: true });
  while (socket.bufferedAmount > HIGH_WATER) await sleep(5, gone);
}

function send(socket: WebSocket, message: object): void {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
}

/** Messages of a socket in order; the socket is paused while nobody takes them. */
class Inbox {
  readonly #messages: (Uint8Array | object)[] = [];
  readonly #socket: WebSocket;
  #wake = Promise.withResolvers<void>();
  #over = false;

  constructor(socket: WebSocket, gone: AbortSignal) {
    this.#socket = socket;
    socket.on("message", (data: Buffer, binary: boolean) => {
      this.#messages.push(binary ? data : parse(data));
      if (this.#messages.length >= 16) socket.pause();
      this.#wake.resolve();
    });
    gone.addEventListener("abort", () => {
      this.stop();
    });
  }

  stop(): void {
    this.#over = true;
    this.#wake.resolve();
  }

  async first(): Promise<unknown> {
    const timer = setTimeout(() => {
      this.stop();
    }, START_MS);
    try {
      for await (const message of this.rest()) return message;
      throw new Fault("deadline_exceeded", `No command came within ${START_MS / 1000} s`);
    } finally {
      clearTimeout(timer);
    }
  }

  async *rest(): AsyncGenerator<Uint8Array | object> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) {
        if (this.#socket.isPaused) this.#socket.resume();
        yield message;
      } else if (this.#over) return;
      else {
        await this.#wake.promise;
        this.#wake = Promise.withResolvers<void>();
      }
    }
  }
}

function parse(data: Buffer): object {
  try {
    const value: unknown = JSON.parse(data.toString("utf8"));
    return typeof value === "object" && value !== null ? value : { type: "malformed" };
  } catch (error) {
    return { type: "malformed", error };
  }
}
