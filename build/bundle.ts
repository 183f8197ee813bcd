// The bundle: all of src/ in one CommonJS file that both runtimes can compile.
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type BuildResult, build, type Plugin } from "esbuild";
import { commit, DIST, packageJson, ROOT } from "./project.ts";

/** The bundle's path. Its source map lies beside it, outside of the executables. */
export const BUNDLE = join(DIST, "memoh.cjs");

export interface BundleOptions {
  readonly outfile?: string;
  readonly plugins?: Plugin[];
}

/**
 * Bundles src/main.ts. `import()` of our own files becomes a call of a lazy initialiser, so what the agent never asks
 * for is parsed but never run.
 */
export async function bundle(options: BundleOptions = {}): Promise<BuildResult<{ metafile: true }>> {
  const outfile = options.outfile ?? BUNDLE;
  await mkdir(dirname(outfile), { recursive: true });
  const result = await build({
    absWorkingDir: ROOT,
    entryPoints: ["src/main.ts"],
    outfile,
    bundle: true,
    platform: "node",
    // Bytecode needs CommonJS. `using` is lowered: the oldest parser of the two decides.
    format: "cjs",
    target: "node20",
    minify: true,
    sourcemap: "external",
    metafile: true,
    logLevel: "warning",
    // ESM dependencies ask for import.meta.url, which CommonJS does not have.
    banner: { js: 'const __meta_url=require("node:url").pathToFileURL(__filename).href;' },
    define: {
      "import.meta.url": "__meta_url",
      __MEMOH_VERSION__: JSON.stringify(packageJson().version),
      __MEMOH_COMMIT__: JSON.stringify(commit()),
    },
    plugins: options.plugins ?? [],
  });
  await writeFile(`${outfile}.meta.json`, JSON.stringify(result.metafile));
  return result;
}
