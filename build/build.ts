// Verb `build`: dist/memoh, or what --runtime and --arch name.
import { mkdir } from "node:fs/promises";
import { parseArgs } from "node:util";
import { bundle } from "./bundle.ts";
import { type Arch, executable, executablePath, type Runtime, sizeOf } from "./executable.ts";
import { CACHE, ROOT, runVerb } from "./project.ts";
import { unlessCurrent } from "./source-key.ts";

/** Builds the executables that are not current and says what it did. */
export async function buildExecutables(runtimes: readonly Runtime[], arch: Arch = "x64"): Promise<void> {
  await mkdir(CACHE, { recursive: true });
  let bundled = false;
  for (const runtime of runtimes) {
    const path = executablePath(runtime, arch);
    const started = performance.now();
    const made = await unlessCurrent(path, async () => {
      if (!bundled) await bundle();
      bundled = true;
      await executable(runtime, arch);
    });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const name = path.slice(ROOT.length + 1);
    console.log(
      made ? `built ${name} (${runtime}, ${await sizeOf(path)}) in ${seconds} s` : `${name} is current`,
    );
  }
}

const USAGE = "npm run build -- [--runtime bun|node|all] [--arch x64|arm64]";

if (import.meta.main) {
  await runVerb(async () => {
    const { values } = parseArgs({
      options: {
        runtime: { type: "string", default: "bun" },
        arch: { type: "string", default: "x64" },
      },
    });
    const { runtime, arch } = values;
    if (runtime !== "bun" && runtime !== "node" && runtime !== "all") throw new Error(USAGE);
    if (arch !== "x64" && arch !== "arm64") throw new Error(USAGE);
    await buildExecutables(runtime === "all" ? ["bun", "node"] : [runtime], arch);
    return 0;
  });
}
