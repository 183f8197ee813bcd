// Image references: the one place that says how a name people type becomes the name containerd and registries know.
import { isIPv6 } from "node:net";
import { Fault } from "../lib/fault.ts";

/** A reference taken apart. There is no tag or digest where none was written. */
export interface ImageRef {
  /** `docker.io`, `reg:5000`, `[::1]:5000` */
  readonly registry: string;
  /** `library/alpine` */
  readonly repository: string;
  readonly tag: string | undefined;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string | undefined;
}

/** Taken when neither tag nor digest is written and something has to be pulled. */
const DEFAULT_TAG = "latest";
/** What a name without a registry belongs to. */
const DEFAULT_REGISTRY = "docker.io";

// The grammar is that of the distribution project: https://github.com/distribution/reference
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const HOST = /^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*$/;
const MAX_NAME = 255;

/**
 * The fully qualified form of a reference: `alpine:3` becomes `docker.io/library/alpine:3`. Adds no tag.
 * @throws Fault invalid_argument when it is empty or malformed
 */
export function normalizeImageRef(ref: string): string {
  return formatImageRef(parseImageRef(ref));
}

/** The normalized reference with the tag `latest` when it has neither tag nor digest. */
export function withDefaultTag(ref: string): string {
  const parsed = parseImageRef(ref);
  if (parsed.tag !== undefined || parsed.digest !== undefined) return formatImageRef(parsed);
  return formatImageRef({ ...parsed, tag: DEFAULT_TAG });
}

/** Writes a reference back as text. */
export function formatImageRef(ref: ImageRef): string {
  const tag = ref.tag === undefined ? "" : `:${ref.tag}`;
  const digest = ref.digest === undefined ? "" : `@${ref.digest}`;
  return `${ref.registry}/${ref.repository}${tag}${digest}`;
}

/**
 * Normalizes a reference and takes it apart.
 * @throws Fault invalid_argument when it is empty or malformed
 */
export function parseImageRef(ref: string): ImageRef {
  const wrong = (why: string, hint: string) =>
    new Fault("invalid_argument", `Cannot use ${JSON.stringify(ref.slice(0, 300))} as an image: ${why}`, {
      hint,
    });
  if (ref === "")
    throw wrong("it is empty", "Give a reference such as debian:12 or registry:5000/team/bot:1");

  const at = ref.indexOf("@");
  const digest = at === -1 ? undefined : ref.slice(at + 1);
  if (digest !== undefined && !DIGEST.test(digest)) {
    throw wrong("the digest is malformed", "A digest is sha256: and 64 lower-case hex digits");
  }
  const named = at === -1 ? ref : ref.slice(0, at);
  // A colon after the last slash begins the tag; before it, it belongs to the registry's port.
  const colon = named.indexOf(":", named.lastIndexOf("/") + 1);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) {
    throw wrong(
      "the tag is malformed",
      "A tag is 1 to 128 letters, digits, underscores, dots and dashes, and does not start with a dot or dash",
    );
  }
  const { registry, repository } = split(colon === -1 ? named : named.slice(0, colon));
  if (!isRegistry(registry)) {
    throw wrong(
      `${JSON.stringify(registry)} is no registry`,
      "A registry is a host name or address, with an optional port",
    );
  }
  if (!repository.split("/").every((part) => COMPONENT.test(part))) {
    throw wrong(
      "the name is malformed",
      "Names are lower-case letters and digits, with single separators . _ __ - between them and / between parts",
    );
  }
  if (registry.length + 1 + repository.length > MAX_NAME) {
    throw wrong(`the name is longer than ${MAX_NAME} characters`, "Use a shorter name");
  }
  return { registry, repository, tag, digest };
}

function split(name: string): { registry: string; repository: string } {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isHost = first.includes(".") || first.includes(":") || first === "localhost";
  const registry = isHost ? first : DEFAULT_REGISTRY;
  const repository = isHost ? name.slice(slash + 1) : name;
  const official = registry === DEFAULT_REGISTRY && !repository.includes("/");
  return { registry, repository: official ? `library/${repository}` : repository };
}

function isRegistry(text: string): boolean {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1];
  if (host === undefined) return false;
  if (match?.[2] !== undefined && (Number(match[2]) < 1 || Number(match[2]) > 65_535)) return false;
  return host.startsWith("[") ? isIPv6(host.slice(1, -1)) && !host.includes("%") : HOST.test(host);
}
