// HTTP to one server of a registry: credentials, redirects, deadlines, and bodies that cannot stall for ever.
import { buildInfo } from "../lib/build-info.ts";
import { Fault } from "../lib/fault.ts";
import { reasonOf } from "../lib/signal.ts";
import { RegistryAuth } from "./registry-auth.ts";
import type { Endpoint } from "./registry-endpoints.ts";
import { connectionFault, statusFault } from "./registry-fault.ts";
import { systemTrust } from "./system-trust.ts";

/** Patience, milliseconds. */
export interface HttpTimes {
  /** Until an answer begins. */
  readonly answerMs: number;
  /** Between two pieces of a body. */
  readonly stallMs: number;
}

/** An answer with status 200 or 206. Dispose it, or its connection stays open. */
export interface Answer extends AsyncDisposable {
  readonly status: number;
  readonly headers: Headers;
  /** Can be read once. Breaks off with `unavailable` when the server does. */
  readonly body: AsyncIterable<Uint8Array>;
}

const MAX_REDIRECTS = 5;
const MAX_RETRY_AFTER_S = 30;

/** One server of a registry, with what it wants to be told about us. */
export class RegistryHttp {
  readonly endpoint: Endpoint;
  readonly #times: HttpTimes;
  readonly #auth: RegistryAuth;
  #notBefore = 0;

  constructor(endpoint: Endpoint, times: HttpTimes) {
    this.endpoint = endpoint;
    this.#times = times;
    this.#auth = new RegistryAuth(endpoint, async (url, headers, signal) => {
      await using answer = await this.#send(url, headers, `log in to ${endpoint.name}`, signal);
      return {
        status: answer.status,
        body: await readBounded(answer.body, 1 << 20, `the token of ${endpoint.name}`),
      };
    });
  }

  /** Milliseconds the server asked to be left alone. */
  get pauseMs(): number {
    return Math.max(this.#notBefore - Date.now(), 0);
  }

  /**
   * Asks for something below `/v2/`.
   * @param doing for errors: `pull docker.io/library/debian:12`
   * @throws Fault unavailable, unauthenticated, permission_denied, not_found, failed_precondition
   */
  async get(
    path: string,
    headers: Readonly<Record<string, string>>,
    options: { readonly scope: string; readonly doing: string; readonly signal: AbortSignal | undefined },
  ): Promise<Answer> {
    const { doing, signal } = options;
    for (let challenged = false; ; challenged = true) {
      const answer = await this.#follow(new URL(path, this.endpoint.base), headers, doing, signal);
      if (answer.status === 200 || answer.status === 206) return answer;
      await using over = answer;
      if (over.status === 401 && over.own) {
        const header = over.headers.get("www-authenticate");
        if (challenged || !(await this.#auth.answer(header, options.scope, signal)))
          throw this.#auth.refused();
        continue;
      }
      const retryAfter = Number(over.headers.get("retry-after"));
      if (retryAfter > 0) this.#notBefore = Date.now() + Math.min(retryAfter, MAX_RETRY_AFTER_S) * 1000;
      const words = await readBounded(over.body, 64 << 10, "its words").catch(() => Buffer.alloc(0));
      throw statusFault(over.status, this.endpoint.name, doing, words.toString("utf8"));
    }
  }

  /** Follows redirects. Credentials go to the registry's own host and nowhere else. */
  async #follow(
    first: URL,
    headers: Readonly<Record<string, string>>,
    doing: string,
    signal: AbortSignal | undefined,
  ): Promise<Answer & { own: boolean }> {
    let url = first;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const own = url.origin === this.endpoint.base.origin;
      const authorization = own ? this.#auth.header() : undefined;
      const answer = await this.#send(
        url,
        { ...headers, ...(authorization === undefined ? {} : { authorization }) },
        doing,
        signal,
      );
      const location = answer.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(answer.status) || location === null) {
        return Object.assign(answer, { own });
      }
      await answer[Symbol.asyncDispose]();
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      const downgrade = this.endpoint.base.protocol === "https:" && next?.protocol !== "https:";
      if (next === undefined || !/^https?:$/.test(next.protocol) || downgrade) {
        throw new Fault(
          "failed_precondition",
          `Cannot ${doing}: ${this.endpoint.name} redirects to where we do not go`,
          {
            hint: "Have the registry redirect to an https URL",
          },
        );
      }
      url = next;
    }
    throw new Fault("failed_precondition", `Cannot ${doing}: ${this.endpoint.name} redirects for ever`, {
      hint: "Check that it is an image registry",
    });
  }

  async #send(
    url: URL,
    headers: Readonly<Record<string, string>>,
    doing: string,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const request = new AbortController();
    const onAbort = () => {
      request.abort(signal === undefined ? undefined : reasonOf(signal));
    };
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    const late = new Fault("unavailable", `Cannot ${doing}: ${url.host} does not answer in time`, {
      hint: "Check that the registry can be reached from this machine",
    });
    let timer = setTimeout(() => {
      request.abort(late);
    }, this.#times.answerMs);
    const failed = (error: unknown): unknown => {
      if (signal?.aborted === true) return reasonOf(signal);
      return request.signal.aborted ? request.signal.reason : connectionFault(error, url.host, doing);
    };
    const over = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
    let response: Response;
    try {
      response = await fetch(url, {
        ...(url.protocol === "https:" ? systemTrust() : {}),
        redirect: "manual",
        signal: request.signal,
        // A body that fetch decompresses would not have its digest.
        headers: { "user-agent": `memoh/${buildInfo.version}`, "accept-encoding": "identity", ...headers },
      });
    } catch (error) {
      over();
      throw failed(error);
    }
    clearTimeout(timer);
    const { stallMs } = this.#times;
    async function* body(): AsyncGenerator<Uint8Array> {
      const reader = response.body?.getReader() as ReadableStreamDefaultReader<Uint8Array> | undefined;
      if (reader === undefined) return;
      try {
        for (;;) {
          timer = setTimeout(() => {
            request.abort(late);
          }, stallMs);
          const { done, value } = await reader.read();
          // Nobody waits for the server while the reader of this body is busy.
          clearTimeout(timer);
          if (done) return;
          yield value;
        }
      } catch (error) {
        throw failed(error);
      } finally {
        clearTimeout(timer);
      }
    }
    return {
      status: response.status,
      headers: response.headers,
      body: body(),
      [Symbol.asyncDispose]: async () => {
        over();
        request.abort(new Fault("cancelled", "the answer is not wanted any more"));
        await Promise.resolve();
      },
    };
  }
}

/** A whole body. @throws Fault failed_precondition when it is larger than it may be */
export async function readBounded(
  body: AsyncIterable<Uint8Array>,
  max: number,
  what: string,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > max) {
      throw new Fault("failed_precondition", `Cannot use ${what}: it is larger than ${max} bytes`, {
        hint: "Check that it is an image registry",
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
