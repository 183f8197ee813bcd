// What this build is: version, commit and the JavaScript runtime it runs on.

declare const __MEMOH_VERSION__: string | undefined;
declare const __MEMOH_COMMIT__: string | undefined;

/** Version, commit and runtime of this program. */
export interface BuildInfo {
  readonly version: string;
  readonly commit: string;
  /** `bun 1.4.5` or `node 24.21.0`. */
  readonly runtime: string;
}

/** The bundler puts version and commit in; unbuilt source says `dev`. */
export const buildInfo: BuildInfo = {
  version: typeof __MEMOH_VERSION__ === "string" ? __MEMOH_VERSION__ : "0.0.0-dev",
  commit: typeof __MEMOH_COMMIT__ === "string" ? __MEMOH_COMMIT__ : "dev",
  runtime:
    process.versions["bun"] === undefined
      ? `node ${process.versions.node}`
      : `bun ${process.versions["bun"]}`,
};
