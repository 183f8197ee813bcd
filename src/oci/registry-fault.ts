// Foreign world: answers and failures of image registries, turned into Faults.
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";

/** Registries and fetch put the useful word in different places; all of them are looked at. */
const TLS_TRUST = /CERT_|CERTIFICATE|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|certificate/i;
const NOT_TLS =
  /WRONG_VERSION_NUMBER|wrong version number|EPROTO|packet length too long|record layer failure/i;

/**
 * The Fault of a request that got no answer, or whose answer broke off. The caller's own abort is not one of these.
 * @param server host and port
 */
export function connectionFault(error: unknown, server: string, doing: string): Fault {
  if (error instanceof Fault) return error;
  const words = causes(error);
  if (NOT_TLS.test(words)) {
    return new Fault("failed_precondition", `Cannot ${doing}: ${server} does not speak TLS`, {
      cause: error,
      hint: `Set insecure = true under [registries."${server}"] if it is meant to speak plain http`,
    });
  }
  if (TLS_TRUST.test(words)) {
    return new Fault("failed_precondition", `Cannot ${doing}: the certificate of ${server} is not trusted`, {
      cause: error,
      hint: "Add its CA to the machine's certificates, or correct the machine's clock",
    });
  }
  return new Fault("unavailable", `Cannot ${doing}: ${server} does not answer (${reason(error)})`, {
    cause: error,
    hint: "Check the registry's name and that it can be reached from this machine",
  });
}

/** What an HTTP status other than success and 401 means. `body` is the beginning of the answer. */
export function statusFault(status: number, server: string, doing: string, body: string): Fault {
  const words = registryWords(body);
  const said = words === "" ? "" : ` (${words})`;
  switch (true) {
    case status === 403:
      return new Fault("permission_denied", `Cannot ${doing}: ${server} refuses access${said}`, {
        hint: `Set username and password of a user who may read it under [registries."${server}"]`,
      });
    case status === 404:
      return new Fault("not_found", `Cannot ${doing}: ${server} does not have it${said}`, {
        hint: "Check the name and the tag",
      });
    case status === 429:
      return new Fault("unavailable", `Cannot ${doing}: ${server} limits the rate of requests${said}`, {
        hint: "Wait a while, or configure credentials or a mirror",
      });
    case status >= 500:
      return new Fault("unavailable", `Cannot ${doing}: ${server} fails with status ${status}${said}`, {
        hint: "Try again later",
      });
    default:
      return new Fault("failed_precondition", `Cannot ${doing}: ${server} answers status ${status}${said}`, {
        hint: "Check that it is an image registry",
      });
  }
}

/** The reason inside the nested errors fetch throws. */
function reason(error: unknown): string {
  let deepest = error;
  for (let depth = 0; depth < 5 && deepest instanceof Error && deepest.cause !== undefined; depth++) {
    deepest = deepest.cause;
  }
  if (deepest instanceof AggregateError) deepest = deepest.errors[0];
  const code = errnoOf(deepest);
  if (code !== undefined) return code;
  return deepest instanceof Error ? deepest.message : String(deepest);
}

function causes(error: unknown): string {
  const words: string[] = [];
  let at = error;
  for (let depth = 0; depth < 5 && at instanceof Error; depth++) {
    words.push(errnoOf(at) ?? "", at.message);
    at = at.cause;
  }
  return words.join(" ");
}

/** The message of the registry's error document, bounded, on one line. */
function registryWords(body: string): string {
  let words = body;
  try {
    const parsed = JSON.parse(body) as { errors?: { code?: unknown; message?: unknown }[] } | null;
    const first = Array.isArray(parsed?.errors) ? parsed.errors[0] : undefined;
    words = [first?.code, first?.message].filter((part) => typeof part === "string").join(": ");
  } catch {
    // Not the registry's own words but a proxy's page.
    words = body.startsWith("<") ? "" : body;
  }
  // Printable characters only: the words end in terminals and logs.
  return words
    .replaceAll(/[^\x20-\x7e]+/g, " ")
    .trim()
    .slice(0, 200);
}
