// gRPC channels: one connection to one peer, in the clear, over a unix socket or with mutual TLS.
import type { DescService } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Fault } from "../lib/fault.ts";
import { abortable } from "../lib/signal.ts";
import { type CallOptions, createClient, type RpcClient } from "./client.ts";
import { MAX_MESSAGE } from "./server.ts";

/** Keys of a TLS client. All PEM. */
export interface ClientTls {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
  /** The CA that signed the servers it may talk to. */
  readonly serverCa: Buffer;
  /** DNS name the server's certificate must carry; the address itself is never checked. */
  readonly serverName: string;
}

export interface ChannelOptions {
  /** `host:port` or `unix:/path`. */
  readonly target: string;
  readonly tls?: ClientTls | undefined;
  /** HTTP/2 ping after so many idle milliseconds; 0 is never. */
  readonly keepaliveMs?: number;
  /** A ping that is not answered for so long ends the connection. */
  readonly keepaliveTimeoutMs?: number;
  /** Also without a call under way. Only for our own agents: servers in Go cut a connection that does. */
  readonly keepaliveWhenIdle?: boolean;
  /** Receive window of each stream, bytes. 4 MiB triples bulk reads; containerd's own default suits containerd. */
  readonly window?: number;
  /** Longest wait between two attempts to connect. */
  readonly maxBackoffMs?: number;
}

export type ChannelState = "idle" | "connecting" | "ready" | "transient_failure" | "shutdown";

const STATES: readonly ChannelState[] = ["idle", "connecting", "ready", "transient_failure", "shutdown"];

/** A connection that closes when disposed. It connects on first use and reconnects by itself. */
export class RpcChannel implements Disposable {
  readonly #client: grpc.Client;
  readonly target: string;

  constructor(options: ChannelOptions) {
    this.target = options.target;
    const keepaliveMs = options.keepaliveMs ?? 0;
    this.#client = new grpc.Client(options.target, credentialsOf(options.tls), {
      "grpc.max_receive_message_length": MAX_MESSAGE,
      "grpc.max_send_message_length": -1,
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.min_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": options.maxBackoffMs ?? 5_000,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_http_proxy": 0,
      "grpc.service_config_disable_resolution": 1,
      ...(keepaliveMs > 0
        ? {
            "grpc.keepalive_time_ms": keepaliveMs,
            "grpc.keepalive_timeout_ms": options.keepaliveTimeoutMs ?? 10_000,
            "grpc.keepalive_permit_without_calls": options.keepaliveWhenIdle === true ? 1 : 0,
          }
        : {}),
      ...(options.window === undefined ? {} : { "grpc-node.flow_control_window": options.window }),
      // Bun refuses an IP address as server name, so the certificate's DNS name is named here.
      ...(options.tls === undefined
        ? {}
        : {
            "grpc.ssl_target_name_override": options.tls.serverName,
            "grpc.default_authority": options.tls.serverName,
          }),
    });
  }

  /** The client of a service on this channel. */
  client<S extends DescService>(service: S, defaults?: CallOptions): RpcClient<S> {
    return createClient(service, this.#client, defaults);
  }

  /** The state of the connection; `connect` also starts one when idle. */
  state(connect = false): ChannelState {
    return STATES[this.#client.getChannel().getConnectivityState(connect)] ?? "shutdown";
  }

  /** Waits until connected. @throws Fault unavailable with the target when the time is up */
  async ready(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#client.waitForReady(Date.now() + timeoutMs, (error) => {
      if (error === undefined) resolve();
      else
        reject(
          new Fault("unavailable", `Cannot connect to ${this.target}: ${error.message}`, { cause: error }),
        );
    });
    await abortable(promise, signal);
  }

  /**
   * Calls back once, at the very moment a connected channel stops being connected and before it can connect anew.
   * @throws Fault unavailable when it is not connected now
   */
  onLost(lost: () => void): void {
    const channel = this.#client.getChannel();
    const ready = grpc.connectivityState.READY;
    if (channel.getConnectivityState(false) !== ready) {
      throw new Fault("unavailable", `Cannot use ${this.target}: the connection was lost`);
    }
    channel.watchConnectivityState(ready, Number.POSITIVE_INFINITY, lost);
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function credentialsOf(tls: ClientTls | undefined): grpc.ChannelCredentials {
  if (tls === undefined) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(tls.serverCa, tls.privateKey, tls.certificate);
}
