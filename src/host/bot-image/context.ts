// The build context: a folder with everything docker/Dockerfile.mcp copies, the same bytes and times on every build.
import { copyFile, cp, mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DOCKER_FILES } from "../../gen/docker-files.ts";
import { AGENT_MOUNT, type AgentFile } from "../agent-files.ts";

export interface ContextParts {
  readonly agent: readonly AgentFile[];
  /** Folder with bin/node and lib/node_modules/npm; absent for the test target. */
  readonly node: string | undefined;
}

/** Times of everything in the context: an engine must not take a new copy for a new file. */
const EPOCH = new Date("2000-01-01T00:00:00Z");

/** Lays the context out in an empty folder. */
export async function layContext(folder: string, parts: ContextParts): Promise<void> {
  const put = async (path: string, content: string, mode: number) => {
    const target = join(folder, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content, { mode });
  };
  for (const [name, content] of Object.entries(DOCKER_FILES)) {
    if (name === "Dockerfile.mcp") await put("Dockerfile", content, 0o644);
    else if (name === "entrypoint.sh") await put("rootfs/opt/entrypoint.sh", content, 0o755);
    else if (name === "uvx.sh") await put("local/bin/uvx", content, 0o755);
    else await put(name.replace("templates/", "rootfs/opt/mcp-template/"), content, 0o644);
  }
  for (const { source, name } of parts.agent) {
    const target = join(folder, "rootfs", AGENT_MOUNT, name);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(source, target);
  }
  if (parts.node !== undefined) await cp(parts.node, join(folder, "local"), { recursive: true });
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isSymbolicLink()) await utimes(join(entry.parentPath, entry.name), EPOCH, EPOCH);
  }
}
