// Who asks: the unix socket is admin, everybody else shows a bearer token; Host and Origin are checked first.
import type { Actor } from "../core/access.ts";
import { SOCKET_ACTOR } from "../core/access.ts";
import type { ControlPlane } from "../core/control.ts";
import { Fault } from "../lib/fault.ts";

/** Paths that answer without a token. */
const OPEN_PATHS = new Set(["/", "/ping", "/health", "/ready", "/api/openapi.json"]);

/** The parts of a request that decide. */
export interface Caller {
  readonly path: string;
  /** Came over the unix socket. */
  readonly trusted: boolean;
  readonly header: (name: string) => string | undefined;
}

/** Checks callers of one address. */
export class Authenticator {
  readonly #control: ControlPlane;
  readonly #hosts: ReadonlySet<string>;

  /** @param allowedHosts names that requests may be addressed to, without port */
  constructor(control: ControlPlane, allowedHosts: Iterable<string>) {
    this.#control = control;
    this.#hosts = new Set(["localhost", "127.0.0.1", "[::1]", ...allowedHosts]);
  }

  /**
   * The actor, or undefined on an open path without a token.
   * @throws Fault unauthenticated, permission_denied for a foreign Host or Origin
   */
  async actor(caller: Caller, signal: AbortSignal): Promise<Actor | undefined> {
    this.checkOrigin(caller);
    if (caller.trusted) return SOCKET_ACTOR;
    const header = caller.header("authorization");
    if (header === undefined) {
      if (OPEN_PATHS.has(caller.path)) return undefined;
      throw new Fault("unauthenticated", "missing token", {
        hint: "Send Authorization: Bearer TOKEN; make one with: memoh token create",
      });
    }
    const match = /^Bearer +(\S+)$/i.exec(header);
    if (match?.[1] === undefined) throw new Fault("unauthenticated", "invalid token");
    return await this.#control.authenticate(match[1], { signal });
  }

  /** A page of another site must not reach the API through a person's browser, nor by rebinding a name. */
  checkOrigin(caller: Caller): void {
    const host = caller.header("host");
    if (!caller.trusted && (host === undefined || !this.#hosts.has(nameOf(host)))) {
      throw new Fault("permission_denied", `Cannot serve requests addressed to ${host ?? "nobody"}`, {
        hint: "Add the name to http.allowed_hosts",
      });
    }
    const origin = caller.header("origin");
    if (origin === undefined) return;
    const from = URL.canParse(origin) ? new URL(origin).host : "";
    if (caller.trusted || host === undefined || from !== host) {
      throw new Fault("permission_denied", `Cannot serve requests from the page of ${origin}`);
    }
  }
}

function nameOf(host: string): string {
  return host.replace(/:\d+$/, "").toLowerCase();
}
