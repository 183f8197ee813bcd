// What an image build asks of docker or buildah, whichever the machine has.
import { Fault } from "../../lib/fault.ts";
import type { LocalBase } from "./local-base.ts";

/** Which stage of the Dockerfile: what people get, or the small one for tests. */
export type ImageTarget = "bot" | "test";

export interface EngineJob {
  /** A folder laid out by context.ts. */
  readonly context: string;
  readonly target: ImageTarget;
  /** A fully qualified reference, or a root file system made here. */
  readonly base: string | LocalBase;
  /** Name of the image. */
  readonly tag: string;
  /** PEM file with further CAs for https mirrors. Used while building, not kept in the image. */
  readonly extraCa: string | undefined;
  /** Pull the base again and use no cached layer. */
  readonly fresh: boolean;
  /** The OCI archive to write. */
  readonly output: string;
  /** Room for large temporary files. */
  readonly temp: string;
}

export interface Engine {
  readonly name: "docker" | "buildah";
  build(job: EngineJob): Promise<void>;
}

/** What both engines say when a base cannot be fetched. */
const NOT_FETCHED =
  /initializing source|pulling image|dial tcp|no such host|connection refused|TLS handshake|failed to resolve|i\/o timeout|not found: manifest|manifest unknown|unauthorized/i;

/** Tells a base that cannot be had from a build that went wrong. */
export function explainBuild(error: unknown, base: string | LocalBase): Fault {
  const fault = Fault.from(error);
  if (typeof base !== "string" || fault.code !== "internal" || !NOT_FETCHED.test(fault.message)) return fault;
  return new Fault("unavailable", `Cannot fetch the base ${base}: ${fault.message}`, {
    hint: "With no registry in reach: --base local makes the base from this machine's own Debian mirror",
    cause: error,
  });
}
