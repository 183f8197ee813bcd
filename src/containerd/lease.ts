// A lease around a change of several calls: nothing made under it is collected before the change is whole.
import { randomBytes } from "node:crypto";
import { Fault } from "../lib/fault.ts";
import type { ContainerdClient, ContainerdServices } from "./client.ts";

export interface LeaseOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds after which containerd drops the lease by itself, should nobody dispose it. */
  readonly expireMs?: number;
}

const DEFAULT_EXPIRE_MS = 60 * 60_000;
const DISPOSE_TIMEOUT_MS = 10_000;

/** A lease of containerd. Make changes through `services`; dispose it when what must stay is labelled or referenced. */
export class Lease implements AsyncDisposable {
  readonly id: string;
  /** containerd's services under this lease. */
  readonly services: ContainerdServices;
  readonly #client: ContainerdClient;

  private constructor(client: ContainerdClient, id: string) {
    this.#client = client;
    this.id = id;
    this.services = client.leased(id);
  }

  /** Makes a lease named after its purpose (letters, digits and dashes). */
  static async create(client: ContainerdClient, purpose: string, options: LeaseOptions = {}): Promise<Lease> {
    const id = `memoh-${purpose}-${randomBytes(6).toString("hex")}`;
    const expire = new Date(Date.now() + (options.expireMs ?? DEFAULT_EXPIRE_MS)).toISOString();
    await client.leases.create(
      { id, labels: { "containerd.io/gc.expire": expire } },
      { signal: options.signal },
    );
    return new Lease(client, id);
  }

  /**
   * Deletes the lease under a deadline of its own. A daemon that cannot be reached is no error here: the lease ends
   * by its expiry, and the work under it has its own outcome.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#client.leases.delete({ id: this.id }, { timeoutMs: DISPOSE_TIMEOUT_MS });
    } catch (error) {
      if (!Fault.is(error, "not_found", "unavailable", "deadline_exceeded")) throw error;
    }
  }
}
