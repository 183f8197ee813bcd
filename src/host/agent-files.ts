// What an agent needs to run in any image: the executable, the loader and libraries it was linked with, and an init.
import { access, constants, realpath } from "node:fs/promises";
import { arch } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Wait } from "../core/workspace.ts";
import { mustRun } from "../lib/command.ts";
import { runningExecutable } from "../lib/executable.ts";
import { Fault } from "../lib/fault.ts";

/** One file of the bundle: what is copied, and its path below the bundle's root. */
export interface AgentFile {
  readonly source: string;
  /** `memoh`, `tini`, `ld-linux-x86-64.so.2` or `lib/…`. */
  readonly name: string;
}

/** Where the bundle is inside a container, mounted or baked in. */
export const AGENT_MOUNT = "/opt/memoh";

/** glibc's program loaders by `os.arch()`: the path is part of the platform's ABI. */
const LOADERS: Readonly<Record<string, string>> = {
  x64: "/lib64/ld-linux-x86-64.so.2",
  arm64: "/lib/ld-linux-aarch64.so.1",
};

const TINI = ["/usr/bin/tini-static", "/usr/local/bin/tini-static", "/sbin/tini-static"];

/** The argument vector that starts the agent from the bundle at {@link AGENT_MOUNT}. */
export function agentArgs(): string[] {
  const loader = join(AGENT_MOUNT, basename(loaderPath()));
  return [
    join(AGENT_MOUNT, "tini"),
    "-g",
    "--",
    loader,
    "--library-path",
    join(AGENT_MOUNT, "lib"),
    join(AGENT_MOUNT, "memoh"),
    "agent",
  ];
}

/** The executable that bots get: the running one, or the clone's dist/memoh when the source runs. */
export async function agentExecutable(): Promise<string> {
  // By process, not by path: a build may have put another file there since this one started.
  if (runningExecutable() !== undefined) return `/proc/${process.pid}/exe`;
  const built = fileURLToPath(new URL("../../dist/memoh", import.meta.url));
  await access(built, constants.X_OK).catch((error: unknown) => {
    throw new Fault("failed_precondition", `Cannot find the agent's executable: there is no ${built}`, {
      hint: "Run `npm run build` first, or start the built executable instead of the source",
      cause: error,
    });
  });
  return built;
}

/**
 * The files of the bundle for an executable of this machine's architecture.
 * @throws Fault failed_precondition when tini or the loader is missing
 */
export async function agentFiles(executable: string, wait: Wait = {}): Promise<AgentFile[]> {
  const loader = loaderPath();
  const tini = await firstOf(TINI);
  if (tini === undefined) {
    throw new Fault("failed_precondition", "Cannot put the agent bundle together: there is no tini-static", {
      hint: "Install the package `tini` (it holds /usr/bin/tini-static)",
    });
  }
  const libraries = await librariesOf(loader, executable, wait);
  return [
    { source: executable, name: "memoh" },
    { source: tini, name: "tini" },
    { source: await realpath(loader), name: basename(loader) },
    ...libraries,
  ];
}

/** Every library the loader would map for a program, under the name the program asks for. */
async function librariesOf(loader: string, program: string, wait: Wait): Promise<AgentFile[]> {
  const { stdout } = await mustRun([loader, "--list", program], {
    timeoutMs: 20_000,
    ...(wait.signal === undefined ? {} : { signal: wait.signal }),
  });
  const found = new Map<string, string>();
  for (const line of stdout.split("\n")) {
    const match = /^\s*(\S+) => (\/\S+) \(/.exec(line);
    if (match?.[1] !== undefined && match[2] !== undefined) found.set(match[1], match[2]);
    else if (line.includes("not found")) {
      throw new Fault("failed_precondition", `Cannot start ${program}: ${line.trim()}`, {
        hint: "Install the library it names",
      });
    }
  }
  const libc = found.get("libc.so.6");
  if (libc === undefined) {
    throw new Fault("internal", `Cannot tell the libraries of ${program}: ${stdout.trim()}`);
  }
  // The Node build loads its terminal addon at run time; that one wants libutil besides.
  const util = join(dirname(libc), "libutil.so.1");
  if (found.has("libstdc++.so.6") && !found.has("libutil.so.1") && (await exists(util))) {
    found.set("libutil.so.1", util);
  }
  return [...found].map(([name, source]) => ({ source, name: `lib/${name}` }));
}

function loaderPath(): string {
  const loader = LOADERS[arch()];
  if (loader === undefined) {
    throw new Fault("unimplemented", `Cannot put the agent bundle together for ${arch()}`, {
      hint: "memoh runs on x86-64 and arm64",
    });
  }
  return loader;
}

async function firstOf(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if (await exists(path)) return path;
  return undefined;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
