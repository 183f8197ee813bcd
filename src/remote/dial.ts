// Connects to an agent and checks who answers before anybody may use the connection.
import { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import { type ClientTls, RpcChannel } from "../rpc/channel.ts";
import { agentFault } from "./agent-fault.ts";
import { checkHello } from "./answers.ts";
import { Connection } from "./connection.ts";
import { diagnose } from "./diagnose.ts";

/** Where an agent answers and the identity it must prove. */
export interface Endpoint {
  readonly botId: string;
  /** Of the task that runs now. */
  readonly bootId: string;
  /** `ip:9090` or `unix:/path`. */
  readonly target: string;
  /** Absent only outside of containers. */
  readonly tls?: ClientTls | undefined;
}

export interface DialOptions {
  /** For connecting, TLS and Hello together, milliseconds. */
  readonly timeoutMs: number;
  readonly idleMs: number;
  readonly keepalive?: Keepalive | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onClose: (why: string) => void;
}

/** Pings that find a peer which went without a word. */
export interface Keepalive {
  /** Silence after which a ping is sent, milliseconds. */
  readonly everyMs: number;
  /** How long its answer may take. */
  readonly timeoutMs: number;
}

const KEEPALIVE: Keepalive = { everyMs: 30_000, timeoutMs: 10_000 };
/** Triples bulk reads over the default of 64 KiB. */
const WINDOW = 4 << 20;

/**
 * One attempt to connect.
 * @throws Fault unavailable when nobody answers (yet), failed_precondition when somebody else does, data_loss when it is
 * no agent
 */
export async function dial(endpoint: Endpoint, options: DialOptions): Promise<Connection> {
  const keepalive = options.keepalive ?? KEEPALIVE;
  const channel = new RpcChannel({
    target: endpoint.target,
    tls: endpoint.tls,
    keepaliveMs: keepalive.everyMs,
    keepaliveTimeoutMs: keepalive.timeoutMs,
    keepaliveWhenIdle: true,
    window: WINDOW,
  });
  try {
    const client = channel.client(ContainerService);
    const answer = await client.hello({}, { signal: options.signal, timeoutMs: options.timeoutMs });
    const hello = checkHello(answer, endpoint.botId);
    checkIdentity(endpoint, hello);
    return new Connection({ hello, channel, idleMs: options.idleMs, onClose: options.onClose });
  } catch (error) {
    channel[Symbol.dispose]();
    throw await explain(endpoint, agentFault(error, endpoint.botId, options.signal), options);
  }
}

function checkIdentity(endpoint: Endpoint, hello: { botId: string; bootId: string }): void {
  if (hello.botId !== endpoint.botId) {
    throw new Fault(
      "failed_precondition",
      `Cannot use the agent at ${endpoint.target}: it is bot ${hello.botId}'s, expected bot ${endpoint.botId}'s`,
      { hint: "The bot's address was given to another one: restart the bot" },
    );
  }
  if (hello.bootId !== endpoint.bootId) {
    throw new Fault(
      "failed_precondition",
      `Cannot use the agent of bot ${endpoint.botId}: it is of boot ${hello.bootId}, expected boot ${endpoint.bootId}`,
      { hint: "The agent is of an earlier start of the bot: restart the bot" },
    );
  }
}

async function explain(endpoint: Endpoint, fault: Fault, options: DialOptions): Promise<Fault> {
  if (options.signal?.aborted === true) return fault;
  switch (fault.code) {
    case "unavailable":
    case "deadline_exceeded":
    case "internal":
    case "data_loss":
      return await diagnose(endpoint, fault, options.timeoutMs);
    case "unimplemented":
      return new Fault(
        "failed_precondition",
        `Cannot use the agent of bot ${endpoint.botId}: it is too old to say who it is`,
        { cause: fault, hint: "Restart the bot: every start brings the present agent in" },
      );
    default:
      return fault;
  }
}
