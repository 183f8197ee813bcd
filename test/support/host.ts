// A whole memoh host of a test's own: the built executable, its own containerd, Postgres, bridge and directories.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CniNetwork } from "../../src/cni/network.ts";
import { mustRun, SYSTEM_PATH } from "../../src/lib/command.ts";
import { readPidFile, stopProcess } from "../../src/lib/daemon.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { freePort } from "./registry.ts";
import { tinyImageArchive } from "./tiny-image.ts";

/** How a command line ended. */
export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface TestHostOptions {
  /** Further lines of its config file. */
  readonly config?: string;
  /** False leaves the image out. */
  readonly image?: boolean;
  /** False leaves it stopped. */
  readonly start?: boolean;
}

/** A host of a test. Disposing stops everything it runs and removes everything it made. */
export interface TestHost extends AsyncDisposable {
  readonly dir: string;
  readonly instance: string;
  readonly dataDir: string;
  readonly runDir: string;
  readonly socketPath: string;
  readonly configFile: string;
  /** `http://127.0.0.1:PORT` */
  readonly http: string;
  readonly image: string;
  /** Runs a command line against this host. */
  cli(args: readonly string[], options?: { readonly input?: string | Uint8Array }): Promise<CliResult>;
  /** The same, which must succeed. @returns stdout */
  ok(args: readonly string[], options?: { readonly input?: string | Uint8Array }): Promise<string>;
  /** The same with --json. */
  json<T>(args: readonly string[]): Promise<T>;
  /** The same, which must fail. @returns exit status and stderr */
  fails(args: readonly string[]): Promise<CliResult>;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** SIGKILL to the host alone. */
  kill(): Promise<void>;
  log(): Promise<string>;
}

export const TINY_IMAGE = "localhost/memoh/tiny:1";

/** The executable under test: MEMOH_TEST_EXECUTABLE, else the default build. */
export function executable(): string {
  const path = process.env["MEMOH_TEST_EXECUTABLE"] ?? join(import.meta.dirname, "..", "..", "dist", "memoh");
  if (!existsSync(path)) throw new Error(`There is no ${path}: run npm run build first`);
  return path;
}

let count = 0;

/** Starts a host with a small image in it. */
export async function startHost(options: TestHostOptions = {}): Promise<TestHost> {
  count += 1;
  // One number per process and host, so that tests side by side never share a bridge, a subnet or a chain.
  const number = (process.pid * 7 + count * 3) % 16_000;
  const instance = `t${number}`;
  const dir = await mkdtemp(`/tmp/memoh-${instance}-`);
  const dataDir = join(dir, "data");
  const runDir = join(dir, "run");
  const configFile = join(dir, "config.toml");
  const port = await freePort();
  const subnet = `10.${100 + (number >> 8)}.${number & 255}.0/24`;
  await writeFile(
    configFile,
    [
      `data_dir = "${dataDir}"`,
      `run_dir = "${runDir}"`,
      "[http]",
      `addr = "127.0.0.1:${port}"`,
      "[network]",
      `subnet = "${subnet}"`,
      "[image]",
      `default = "${TINY_IMAGE}"`,
      options.config ?? "",
      "",
    ].join("\n"),
  );
  const run = async (args: readonly string[], input: string | Uint8Array = ""): Promise<CliResult> =>
    await runProgram([executable(), ...args], input, {
      MEMOH_INSTANCE: instance,
      MEMOH_CONFIG: configFile,
    });
  const ok = async (args: readonly string[], input?: string | Uint8Array) => {
    const result = await run(args, input);
    if (result.code !== 0) {
      const log = await readFile(join(dataDir, "host.log"), "utf8").catch(() => "");
      throw new Error(
        `memoh ${args.join(" ")} ended with ${result.code}: ${result.stderr}\n--- log\n${log.split("\n").slice(-25).join("\n")}`,
      );
    }
    return result.stdout;
  };
  const host: TestHost = {
    dir,
    instance,
    dataDir,
    runDir,
    configFile,
    socketPath: join(runDir, "memoh.sock"),
    http: `http://127.0.0.1:${port}`,
    image: TINY_IMAGE,
    cli: async (args, given) => await run(args, given?.input),
    ok: async (args, given) => await ok(args, given?.input),
    json: async <T>(args: readonly string[]) => JSON.parse(await ok([...args, "--json"])) as T,
    fails: async (args) => {
      const result = await run(args);
      if (result.code === 0) throw new Error(`memoh ${args.join(" ")} should have failed: ${result.stdout}`);
      return result;
    },
    start: async () => {
      await ok(["host", "--detach"]);
    },
    stop: async () => {
      await ok(["host", "--stop"]);
    },
    kill: async () => {
      const running = await readPidFile(join(runDir, "host.pid"));
      if (running === undefined) throw new Error("no host is running");
      process.kill(running.pid, "SIGKILL");
      await stopProcess(running, 5_000);
    },
    log: async () => await readFile(join(dataDir, "host.log"), "utf8"),
    [Symbol.asyncDispose]: async () => {
      const stopped = await run(["host", "--stop", "--all"]);
      await new CniNetwork({
        instance,
        bridge: `${instance}0`,
        subnet,
        runDir,
        log: silentLogger(),
      }).teardownHost();
      await unmountBelow(dir);
      await rm(dir, { recursive: true, force: true });
      if (stopped.code !== 0) throw new Error(`stopping ${instance} failed: ${stopped.stderr}`);
    },
  };
  try {
    if (options.start !== false) {
      await host.start();
      await waitReady(host);
      if (options.image !== false) {
        const archive = join(dir, "tiny.tar");
        await tinyImageArchive(archive, { name: TINY_IMAGE, env: ["PATH=/bin", "FROM_IMAGE=yes"] });
        await host.ok(["image", "import", archive]);
      }
    }
    return host;
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
}

async function waitReady(host: TestHost): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    const response = await fetch(`${host.http}/ready`).catch(() => undefined);
    if (response?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the host did not become ready:\n${await host.log()}`);
}

async function runProgram(
  argv: readonly string[],
  input: string | Uint8Array,
  env: Readonly<Record<string, string>>,
): Promise<CliResult> {
  const [program = "", ...args] = argv;
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: SYSTEM_PATH, HOME: "/root", ...env },
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.on("error", reject);
  child.on("close", (code, signal) => {
    resolve(code ?? (signal === null ? 255 : 137));
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 180_000);
  try {
    const code = await promise;
    return { code, stdout: Buffer.concat(out).toString("utf8"), stderr: Buffer.concat(err).toString("utf8") };
  } finally {
    clearTimeout(timer);
  }
}

/** Unmounts what a stopped instance left mounted below its directory: network namespaces and root file systems. */
async function unmountBelow(dir: string): Promise<void> {
  const mounts = (await readFile("/proc/self/mountinfo", "utf8"))
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => path.startsWith(`${dir}/`))
    .sort((a, b) => b.length - a.length);
  for (const path of mounts) await mustRun(["umount", "-l", path]);
}
