// Where a registry is asked: its mirrors in their order, then itself.
import { Fault } from "../lib/fault.ts";

/** What is configured about one registry or mirror host. */
export interface RegistryHost {
  /** `docker.io`, `registry.example:5000`, as in references. */
  readonly host: string;
  /** Base URLs asked in order before the registry itself. */
  readonly mirrors: readonly string[];
  /** Plain http. */
  readonly insecure: boolean;
  readonly username: string | undefined;
  /** A secret that only `reveal` shows. */
  readonly password: { reveal(): string } | undefined;
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** One server that may have the image. */
export interface Endpoint {
  /** How errors name it: host and port. */
  readonly name: string;
  /** Ends in `/v2/`. */
  readonly base: URL;
  readonly mirror: boolean;
  readonly credentials: Credentials | undefined;
}

/** The API of Docker's registry is not on the host that names its images. */
const API_HOSTS: Readonly<Record<string, string>> = { "docker.io": "registry-1.docker.io" };

/**
 * The servers to ask for images of a registry, best first. A mirror has its own credentials, by its own host; those of
 * the registry are never sent to it.
 * @throws Fault invalid_argument for a mirror that is no usable URL
 */
export function endpointsOf(registry: string, hosts: readonly RegistryHost[]): Endpoint[] {
  const own = hosts.find(({ host }) => host === registry);
  const mirrors = (own?.mirrors ?? []).map((mirror) => {
    const base = mirrorUrl(mirror, registry);
    return { name: base.host, base, mirror: true, credentials: credentialsOf(base.host, hosts) };
  });
  const scheme = own?.insecure === true ? "http" : "https";
  const base = new URL(`${scheme}://${API_HOSTS[registry] ?? registry}/v2/`);
  return [...mirrors, { name: registry, base, mirror: false, credentials: credentialsOf(registry, hosts) }];
}

/** A mirror below a path of its own (`https://mirror.example/v2/proxy`) is asked there. */
function mirrorUrl(text: string, registry: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const usable = url !== undefined && /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "";
  if (!usable || url.username !== "" || url.password !== "") {
    throw new Fault(
      "invalid_argument",
      `Cannot use a mirror of ${registry}: it is no plain http or https URL`,
      {
        hint: `Write https://HOST[:PORT][/v2/PATH] in registries."${registry}".mirrors, credentials in registries."HOST"`,
      },
    );
  }
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = /\/v2(?:\/|$)/.test(path) ? `${path}/` : `${path}/v2/`;
  return url;
}

function credentialsOf(name: string, hosts: readonly RegistryHost[]): Credentials | undefined {
  const own = hosts.find(({ host }) => host === name);
  if (own?.username === undefined || own.password === undefined) return undefined;
  return { username: own.username, password: own.password.reveal() };
}
