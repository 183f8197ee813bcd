// One checked connection to one agent: the calls under way on it, and its end.
import type { Hello } from "../core/workspace.ts";
import { ContainerService } from "../gen/proto/mcpcontainer/container_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { RpcChannel } from "../rpc/channel.ts";
import { type AgentClient, type Lease, leaseOf } from "./route.ts";

export interface ConnectionOptions {
  /** Who answered at the other end, already compared with who should. */
  readonly hello: Hello;
  readonly channel: RpcChannel;
  /** Closes by itself after so many milliseconds without a call; 0 is never. */
  readonly idleMs: number;
  /** Called once, when it closes for whatever reason. */
  readonly onClose: (why: string) => void;
}

/**
 * A connection that is used once and never heals: when it is lost, whoever comes next dials anew and checks again who
 * answers. Closing it ends its calls with `unavailable`.
 */
export class Connection implements Disposable {
  readonly hello: Hello;
  readonly #channel: RpcChannel;
  readonly #client: AgentClient;
  readonly #options: ConnectionOptions;
  readonly #calls = new Set<Lease>();
  readonly #idle: NodeJS.Timeout | undefined;
  #closed = false;

  /** @throws Fault unavailable when the channel is already lost */
  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.hello = options.hello;
    this.#channel = options.channel;
    this.#client = options.channel.client(ContainerService);
    options.channel.onLost(() => {
      this.close("the connection was lost");
    });
    if (options.idleMs > 0) {
      this.#idle = setTimeout(() => {
        if (this.#calls.size === 0) this.close("it was idle");
      }, options.idleMs).unref();
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Calls under way. */
  get calls(): number {
    return this.#calls.size;
  }

  /** A lease for one call, or undefined when the connection is closed. */
  lease(parent: AbortSignal | undefined): Lease | undefined {
    if (this.#closed) return undefined;
    const lease = leaseOf(this.#client, parent, () => {
      this.#calls.delete(lease);
      if (this.#calls.size === 0 && !this.#closed) this.#idle?.refresh();
    });
    this.#calls.add(lease);
    return lease;
  }

  /** Takes no more calls and ends those under way. */
  close(why: string): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#idle);
    this.#options.onClose(why);
    const reason = new Fault(
      "unavailable",
      `The connection to the agent of bot ${this.hello.botId} was closed: ${why}`,
    );
    for (const call of this.#calls) call.cancel(reason);
    this.#calls.clear();
    this.#channel[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close("it is no longer needed");
  }
}
