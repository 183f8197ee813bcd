// Builds the bot image: lays the context out, lets docker or buildah build it, packs it; an unchanged one is not built.
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Wait } from "../../core/workspace.ts";
import { DOCKER_FILES } from "../../gen/docker-files.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { type AgentFile, agentExecutable, agentFiles } from "../agent-files.ts";
import { buildahEngine } from "./buildah.ts";
import { layContext } from "./context.ts";
import { dockerEngine, dockerLacks } from "./docker.ts";
import type { Engine, ImageTarget } from "./engine.ts";
import { type LocalBase, localBase } from "./local-base.ts";
import { nodeFiles } from "./node-files.ts";
import { type BuildTools, requireProgram } from "./tools.ts";

/** What the images are called unless told otherwise. `localhost` is a name that nobody pulls by accident. */
export const IMAGE_NAMES: Readonly<Record<ImageTarget, string>> = {
  bot: "localhost/memoh/bot:latest",
  test: "localhost/memoh/bot:test",
};

/** The base of an image that is built where a registry is in reach. */
export const DEFAULT_BASE = "docker.io/library/debian:bookworm-slim";

export interface BuildBotImage extends Wait {
  /** Keeps bases, Node and layers between builds. Safe to delete. */
  readonly workDir: string;
  /** The OCI archive to write. */
  readonly output: string;
  /** A fully qualified image reference, or `local`: made from this machine's own Debian mirror. */
  readonly base?: string | undefined;
  readonly target?: ImageTarget | undefined;
  readonly name?: string | undefined;
  /** The executable that goes into the image; the running one when absent. */
  readonly executable?: string | undefined;
  readonly engine?: "docker" | "buildah" | undefined;
  /** PEM file with further CAs, for https mirrors behind an inspecting proxy. Not kept in the image. */
  readonly extraCa?: string | undefined;
  /** Take nothing from earlier builds. */
  readonly fresh?: boolean | undefined;
  /** Environment of npm, docker and apt (config/tool-env.ts). */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly onProgress?: ((message: string) => void) | undefined;
}

export interface BuiltImage {
  readonly archive: string;
  readonly name: string;
  /** Of the archive. */
  readonly bytes: number;
  readonly engine: "docker" | "buildah";
  /** Nothing had changed, so nothing was built. */
  readonly cached: boolean;
}

/**
 * Builds the image into an OCI archive.
 * @throws Fault permission_denied when not root, failed_precondition when a tool is missing
 */
export async function buildBotImage(options: BuildBotImage): Promise<BuiltImage> {
  if (process.getuid?.() !== 0) {
    throw new Fault("permission_denied", "Cannot build the image: only root may make root file systems", {
      hint: "Run it as root",
    });
  }
  const tools: BuildTools = {
    progress: options.onProgress ?? (() => undefined),
    command: {
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      env: options.env ?? {},
    },
  };
  const output = resolve(options.output);
  const workDir = resolve(options.workDir);
  const target = options.target ?? "bot";
  const name = options.name ?? IMAGE_NAMES[target];
  const fresh = options.fresh === true;
  await mkdir(workDir, { recursive: true, mode: 0o755 });
  await mkdir(dirname(output), { recursive: true });

  const agent = await agentFiles(options.executable ?? (await agentExecutable()), options);
  await requireProgram("skopeo", tools);
  const engine = await chooseEngine(options.engine, workDir, tools);
  const base =
    options.base === "local"
      ? await localBase(join(workDir, "base"), tools, fresh)
      : (options.base ?? DEFAULT_BASE);
  const key = await keyOf({ agent, base, target, name, engine: engine.name });
  const record = `${output}.built`;
  if (!fresh && (await recordOf(record)) === `${key} ${(await stampOf(output)) ?? ""}`) {
    return { archive: output, name, bytes: (await stat(output)).size, engine: engine.name, cached: true };
  }

  const work = join(workDir, `build-${randomUUID()}`);
  const context = join(work, "context");
  const temp = join(work, "tmp");
  try {
    await mkdir(context, { recursive: true });
    await mkdir(temp);
    const node = target === "bot" ? await nodeFiles(join(workDir, "node"), tools) : undefined;
    await layContext(context, { agent, node });
    await engine.build({ context, target, base, tag: name, extraCa: options.extraCa, fresh, output, temp });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  await writeFileAtomic(record, `${key} ${(await stampOf(output)) ?? ""}`);
  return { archive: output, name, bytes: (await stat(output)).size, engine: engine.name, cached: false };
}

async function chooseEngine(
  wanted: "docker" | "buildah" | undefined,
  workDir: string,
  tools: BuildTools,
): Promise<Engine> {
  if (wanted !== "buildah") {
    const lacks = await dockerLacks(tools);
    if (lacks === undefined) return dockerEngine(tools);
    if (wanted === "docker") {
      throw new Fault("failed_precondition", `Cannot build the image with docker: ${lacks}`, {
        hint: "Mend that, or leave --engine away to use buildah",
      });
    }
  }
  await requireProgram("buildah", tools);
  return buildahEngine(join(workDir, "store"), tools);
}

async function keyOf(parts: {
  agent: readonly AgentFile[];
  base: string | LocalBase;
  target: ImageTarget;
  name: string;
  engine: string;
}): Promise<string> {
  const hash = createHash("sha256").update(
    JSON.stringify([parts.base, parts.target, parts.name, parts.engine]),
  );
  hash.update(JSON.stringify(DOCKER_FILES));
  for (const file of parts.agent) {
    hash.update(`\0${file.name}\0`);
    for await (const chunk of createReadStream(file.source, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  }
  return hash.digest("hex");
}

async function recordOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot read ${path}`);
  }
}

/** Tells one file from another that took its place. */
async function stampOf(path: string): Promise<string | undefined> {
  try {
    const { size, mtimeMs, ino } = await stat(path);
    return `${size} ${mtimeMs} ${ino}`;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot look at ${path}`);
  }
}
