// What an image build asks of docker or buildah, whichever the machine has.
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
