// The client of one containerd: every service of it we speak, in one namespace, over its unix socket.
import { Containers } from "../gen/proto/containerd/containers_pb.ts";
import { Content } from "../gen/proto/containerd/content_pb.ts";
import { Diff } from "../gen/proto/containerd/diff_pb.ts";
import { Events } from "../gen/proto/containerd/events_pb.ts";
import { Images } from "../gen/proto/containerd/images_pb.ts";
import { Introspection } from "../gen/proto/containerd/introspection_pb.ts";
import { Leases } from "../gen/proto/containerd/leases_pb.ts";
import { Namespaces } from "../gen/proto/containerd/namespaces_pb.ts";
import { Snapshots } from "../gen/proto/containerd/snapshots_pb.ts";
import { Tasks } from "../gen/proto/containerd/tasks_pb.ts";
import { Version } from "../gen/proto/containerd/version_pb.ts";
import { RpcChannel } from "../rpc/channel.ts";
import type { RpcClient } from "../rpc/client.ts";
import { faultingClient } from "./faulting-client.ts";

/**
 * containerd's services. Every failure is a Fault (containerd-fault.ts). Unary calls and lists have a deadline of
 * their own unless the call gives one; `timeoutMs: undefined` is no deadline.
 */
export interface ContainerdServices {
  readonly containers: RpcClient<typeof Containers>;
  readonly content: RpcClient<typeof Content>;
  readonly diff: RpcClient<typeof Diff>;
  readonly events: RpcClient<typeof Events>;
  readonly images: RpcClient<typeof Images>;
  readonly introspection: RpcClient<typeof Introspection>;
  readonly leases: RpcClient<typeof Leases>;
  readonly namespaces: RpcClient<typeof Namespaces>;
  readonly snapshots: RpcClient<typeof Snapshots>;
  readonly tasks: RpcClient<typeof Tasks>;
  readonly version: RpcClient<typeof Version>;
}

export interface ContainerdOptions {
  /** Path of the daemon's socket. */
  readonly socket: string;
  /** containerd namespace of every call. */
  readonly namespace: string;
  /** Default deadline of one call, milliseconds. */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;

/** One connection to one containerd. It connects on first use and by itself again after the daemon's restart. */
export class ContainerdClient implements ContainerdServices, AsyncDisposable {
  readonly socket: string;
  readonly namespace: string;
  readonly containers: RpcClient<typeof Containers>;
  readonly content: RpcClient<typeof Content>;
  readonly diff: RpcClient<typeof Diff>;
  readonly events: RpcClient<typeof Events>;
  readonly images: RpcClient<typeof Images>;
  readonly introspection: RpcClient<typeof Introspection>;
  readonly leases: RpcClient<typeof Leases>;
  readonly namespaces: RpcClient<typeof Namespaces>;
  readonly snapshots: RpcClient<typeof Snapshots>;
  readonly tasks: RpcClient<typeof Tasks>;
  readonly version: RpcClient<typeof Version>;
  readonly #channel: RpcChannel;
  readonly #timeoutMs: number;

  constructor(options: ContainerdOptions) {
    this.socket = options.socket;
    this.namespace = options.namespace;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    // A local socket costs nothing to try, so a restarted daemon is found again within half a second.
    this.#channel = new RpcChannel({ target: `unix:${options.socket}`, maxBackoffMs: 500 });
    const services = this.#services({});
    this.containers = services.containers;
    this.content = services.content;
    this.diff = services.diff;
    this.events = services.events;
    this.images = services.images;
    this.introspection = services.introspection;
    this.leases = services.leases;
    this.namespaces = services.namespaces;
    this.snapshots = services.snapshots;
    this.tasks = services.tasks;
    this.version = services.version;
  }

  /** The same services with a lease on every call: what they make is safe from the collector while the lease lives. */
  leased(leaseId: string): ContainerdServices {
    return this.#services({ "containerd-lease": leaseId });
  }

  /** Waits until the socket takes connections. @throws Fault unavailable */
  async ready(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    await this.#channel.ready(timeoutMs, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#channel[Symbol.dispose]();
    await Promise.resolve();
  }

  #services(metadata: Readonly<Record<string, string>>): ContainerdServices {
    const options = {
      socket: this.socket,
      metadata: { "containerd-namespace": this.namespace, ...metadata },
      timeoutMs: this.#timeoutMs,
    };
    return {
      containers: faultingClient(this.#channel, Containers, options),
      content: faultingClient(this.#channel, Content, options),
      diff: faultingClient(this.#channel, Diff, options),
      events: faultingClient(this.#channel, Events, options),
      images: faultingClient(this.#channel, Images, options),
      introspection: faultingClient(this.#channel, Introspection, options),
      leases: faultingClient(this.#channel, Leases, options),
      namespaces: faultingClient(this.#channel, Namespaces, options),
      snapshots: faultingClient(this.#channel, Snapshots, options),
      tasks: faultingClient(this.#channel, Tasks, options),
      version: faultingClient(this.#channel, Version, options),
    };
  }
}
