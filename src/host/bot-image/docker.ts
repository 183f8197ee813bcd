// Image builds with a docker engine that runs on the machine.
import { join } from "node:path";
import { mustRun, runCommand } from "../../lib/command.ts";
import { Fault } from "../../lib/fault.ts";
import { type Engine, explainBuild } from "./engine.ts";
import { packOciArchive } from "./skopeo.ts";
import type { BuildTools } from "./tools.ts";

const MINUTES = 60_000;

/** What keeps docker from building here; undefined when it can. */
export async function dockerLacks(tools: BuildTools): Promise<string | undefined> {
  const ask = async (...args: string[]) =>
    await runCommand(["docker", ...args], { ...withBuildKit(tools), timeoutMs: 10_000 });
  try {
    const engine = await ask("version", "--format", "{{.Server.Version}}");
    if (engine.code !== 0) return "no docker engine answers";
    // Newer clients build with a plug-in that may not be installed; the old builder knows no secrets.
    const help = await ask("build", "--help");
    return help.stdout.includes("--secret") ? undefined : "docker has no buildx plug-in";
  } catch (error) {
    if (Fault.is(error, "not_found")) return "docker is not installed";
    if (Fault.is(error, "deadline_exceeded")) return "no docker engine answers";
    throw error;
  }
}

/** Secrets of a build need BuildKit, which older clients leave off. */
function withBuildKit(tools: BuildTools) {
  return { ...tools.command, env: { ...tools.command.env, DOCKER_BUILDKIT: "1" } };
}

export function dockerEngine(tools: BuildTools): Engine {
  const run = async (...args: string[]) =>
    await mustRun(["docker", ...args], {
      ...withBuildKit(tools),
      timeoutMs: 20 * MINUTES,
      group: true,
    });
  return {
    name: "docker",
    build: async (job) => {
      let base = job.base;
      if (typeof base !== "string") {
        const name = `memoh/base:${base.key}`;
        tools.progress("importing the base");
        await run("import", "--change", 'CMD ["/bin/bash"]', base.archive, name);
        base = name;
      }
      tools.progress("building the image with docker");
      await run(
        "build",
        "--network=host",
        ...(typeof job.base === "string" ? ["--pull"] : []),
        ...(job.fresh ? ["--no-cache"] : []),
        ...(job.extraCa === undefined ? [] : ["--secret", `id=extra_ca,src=${job.extraCa}`]),
        "--build-arg",
        `BASE=${base}`,
        "--target",
        job.target,
        "--tag",
        job.tag,
        job.context,
      ).catch((error: unknown) => {
        throw explainBuild(error, job.base);
      });
      const saved = join(job.temp, "docker.tar");
      await run("save", "--output", saved, job.tag);
      await packOciArchive(`docker-archive:${saved}`, job, tools);
    },
  };
}
