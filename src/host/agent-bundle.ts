// The agent bundle on the host's disk: a directory per build, made whole or not at all, mounted read-only into bots.
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, lstat, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ReadOnlyMount } from "../core/runtime.ts";
import type { Wait } from "../core/workspace.ts";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { throwIfAborted } from "../lib/signal.ts";
import { AGENT_MOUNT, type AgentFile, agentArgs, agentExecutable, agentFiles } from "./agent-files.ts";

/** A bundle that is complete on disk. */
export interface AgentBundle {
  /** `<data>/agent/<hash>` */
  readonly dir: string;
  /** Of every file's name and content: another build is another directory. */
  readonly hash: string;
  readonly mount: ReadOnlyMount;
  /** Init and agent, as the container's process. */
  readonly args: readonly string[];
}

/** Hex digits of the content hash that name the directory. */
const HASH_LENGTH = 32;

/**
 * Makes the bundle of the running executable exist below `<dataDir>/agent` and returns it. A new build makes a new
 * directory; the old ones stay, because running bots have them mounted.
 * @throws Fault failed_precondition when something to copy is missing, data_loss when a copy differs
 */
export async function ensureAgentBundle(
  dataDir: string,
  log: Logger,
  options: Wait & { readonly executable?: string } = {},
): Promise<AgentBundle> {
  const executable = options.executable ?? (await agentExecutable());
  const files = await agentFiles(executable, options);
  const digests = await Promise.all(files.map((file) => sha256(file.source)));
  throwIfAborted(options.signal);
  const listing = files.map((file, index) => `${file.name} ${digests[index]}\n`).sort();
  const hash = createHash("sha256").update(listing.join("")).digest("hex").slice(0, HASH_LENGTH);
  const parent = join(dataDir, "agent");
  const dir = join(parent, hash);
  if (!(await isComplete(dir, files))) {
    await make(parent, dir, files, digests, options);
    log.info({ dir }, "agent bundle made");
  }
  return { dir, hash, mount: { source: dir, target: AGENT_MOUNT }, args: agentArgs() };
}

/** Bundles below `<dataDir>/agent`, by hash. Those no running bot has mounted may be removed. */
export async function agentBundles(dataDir: string): Promise<string[]> {
  try {
    return (await readdir(join(dataDir, "agent"))).filter((name) => /^[0-9a-f]{32}$/.test(name)).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw faultFromErrno(error, "Cannot list the agent bundles");
  }
}

/** Whether every file is there with its size; contents were checked when the directory was made. */
async function isComplete(dir: string, files: readonly AgentFile[]): Promise<boolean> {
  for (const { name, source } of files) {
    try {
      const [there, from] = await Promise.all([lstat(join(dir, name)), stat(source)]);
      if (!there.isFile() || there.size !== from.size || (there.mode & 0o777) !== 0o755) return false;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      throw faultFromErrno(error, `Cannot look at the agent bundle ${dir}`);
    }
  }
  return true;
}

async function make(
  parent: string,
  dir: string,
  files: readonly AgentFile[],
  digests: readonly string[],
  wait: Wait,
): Promise<void> {
  const work = join(parent, `.${randomUUID()}`);
  try {
    await mkdir(work, { recursive: true, mode: 0o755 });
    const folders = new Set([work]);
    for (const [index, file] of files.entries()) {
      throwIfAborted(wait.signal);
      const target = join(work, file.name);
      await mkdir(dirname(target), { recursive: true, mode: 0o755 });
      folders.add(dirname(target));
      await copyFile(file.source, target);
      {
        await using handle = await open(target, "r+");
        await handle.chmod(0o755);
        await handle.sync();
      }
      if ((await sha256(target)) !== digests[index]) {
        throw new Fault("data_loss", `Cannot copy ${file.source}: the copy differs`, {
          hint: "Check the disk, and that nothing replaces the executable meanwhile",
        });
      }
    }
    for (const folder of folders) {
      await using handle = await open(folder, "r");
      await handle.chmod(0o755);
      await handle.sync();
    }
    await putInPlace(work, dir, files);
    await using handle = await open(parent, "r");
    await handle.sync();
  } catch (error) {
    throw faultFromErrno(error, `Cannot make the agent bundle ${dir}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What is in the way is the work of another host that was faster, or damaged: no container can start from that. */
async function putInPlace(work: string, dir: string, files: readonly AgentFile[]): Promise<void> {
  try {
    await rename(work, dir);
  } catch (error) {
    if (errnoOf(error) !== "ENOTEMPTY" && errnoOf(error) !== "EEXIST") throw error;
    if (await isComplete(dir, files)) return;
    await rm(dir, { recursive: true, force: true });
    await rename(work, dir);
  }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    throw faultFromErrno(error, `Cannot read ${path}`);
  }
  return hash.digest("hex");
}
