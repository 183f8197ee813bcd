// How a registry is told who asks: challenges, tokens and basic credentials.
import * as z from "zod";
import { Fault } from "../lib/fault.ts";
import type { Endpoint } from "./registry-endpoints.ts";

/** One scheme of a WWW-Authenticate header. Parameter names are lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly params: ReadonlyMap<string, string>;
}

/** Sends a GET without credentials of its own and gives status and body; the HTTP layer supplies it. */
export type Get = (
  url: URL,
  headers: Record<string, string>,
  signal: AbortSignal | undefined,
) => Promise<{ readonly status: number; readonly body: Buffer }>;

const tokenAnswer = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().optional(),
});

/** Tokens that name no end live this long (https://distribution.github.io/distribution/spec/auth/token/). */
const DEFAULT_TOKEN_S = 60;

/** What is known about access to one endpoint. */
export class RegistryAuth {
  readonly #endpoint: Endpoint;
  readonly #get: Get;
  #header: string | undefined;
  #until = 0;

  constructor(endpoint: Endpoint, get: Get) {
    this.#endpoint = endpoint;
    this.#get = get;
  }

  /** The Authorization header to send, if one is known. */
  header(): string | undefined {
    return Date.now() < this.#until ? this.#header : undefined;
  }

  /**
   * Answers the challenge of a 401. Afterwards `header` has what to send.
   * @param scope asked for when the challenge names none: `repository:NAME:pull`
   * @returns false when there is nothing to answer with
   * @throws Fault unauthenticated when the token server refuses the credentials
   */
  async answer(header: string | null, scope: string, signal: AbortSignal | undefined): Promise<boolean> {
    const challenges = parseChallenges(header ?? "");
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    if (bearer !== undefined) {
      await this.#fetchToken(bearer, scope, signal);
      return true;
    }
    const { credentials } = this.#endpoint;
    if (credentials === undefined || !challenges.some(({ scheme }) => scheme === "basic")) return false;
    this.#header = basicHeader(credentials.username, credentials.password);
    this.#until = Infinity;
    return true;
  }

  async #fetchToken(challenge: Challenge, scope: string, signal: AbortSignal | undefined): Promise<void> {
    const { base, name, credentials } = this.#endpoint;
    const realm = challenge.params.get("realm") ?? "";
    const url = URL.canParse(realm) ? new URL(realm) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol)) {
      throw new Fault("failed_precondition", `Cannot log in to ${name}: it names no token server`, {
        hint: "Check that it is an image registry",
      });
    }
    if (url.protocol === "http:" && base.protocol === "https:") {
      throw new Fault("failed_precondition", `Cannot log in to ${name}: its token server speaks plain http`, {
        hint: "Have the registry name a token server with https",
      });
    }
    const service = challenge.params.get("service");
    if (service !== undefined) url.searchParams.set("service", service);
    url.searchParams.set("scope", challenge.params.get("scope") ?? scope);
    const { status, body } = await this.#get(
      url,
      credentials === undefined
        ? {}
        : { authorization: basicHeader(credentials.username, credentials.password) },
      signal,
    );
    if (status === 401 || status === 403) throw this.refused();
    if (status === 429 || status >= 500) {
      throw new Fault(
        "unavailable",
        `Cannot log in to ${name}: its token server fails with status ${status}`,
        {
          hint: "Try again later",
        },
      );
    }
    const answer = status === 200 ? tokenOf(body) : undefined;
    if (answer === undefined) {
      throw new Fault("failed_precondition", `Cannot log in to ${name}: its token server gives no token`, {
        hint: "Check that it is an image registry",
      });
    }
    this.#header = `Bearer ${answer.token}`;
    // Renewed a little early, so that a request under way does not meet the end.
    this.#until = Date.now() + answer.seconds * 900;
  }

  /** The error for a 401 that is final. */
  refused(): Fault {
    const { name, credentials } = this.#endpoint;
    const verb = credentials === undefined ? "Set" : "Correct";
    return new Fault(
      "unauthenticated",
      credentials === undefined
        ? `Cannot log in to ${name}: it asks for credentials`
        : `Cannot log in to ${name}: it refuses the credentials`,
      {
        hint: `${verb} username and password under [registries."${name}"], and check the image's name: some registries answer so for images they do not have`,
      },
    );
  }
}

/** The schemes of a WWW-Authenticate header (RFC 9110 section 11.6.1). */
export function parseChallenges(header: string): Challenge[] {
  const part = /[\s,]*([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y;
  const challenges: { scheme: string; params: Map<string, string> }[] = [];
  for (let match = part.exec(header); match !== null; match = part.exec(header)) {
    const [, name = "", quoted, bare] = match;
    const value = quoted?.replaceAll(/\\(.)/g, "$1") ?? bare;
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), params: new Map() });
    else challenges.at(-1)?.params.set(name.toLowerCase(), value);
  }
  return challenges;
}

function tokenOf(body: Buffer): { token: string; seconds: number } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
  const parsed = tokenAnswer.safeParse(value);
  const token = parsed.data?.token ?? parsed.data?.access_token;
  if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) return undefined;
  return { token, seconds: Math.max(parsed.data?.expires_in ?? DEFAULT_TOKEN_S, 1) };
}

function basicHeader(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}
