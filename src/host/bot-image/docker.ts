// Image builds with a docker engine that runs on the machine.
import { join } from "node:path";
import { mustRun, runCommand } from "../../lib/command.ts";
import { Fault } from "../../lib/fault.ts";
import { type Engine, explainBuild } from "./engine.ts";
import { packOciArchive } from "./skopeo.ts";
import type { BuildTools } from "./tools.ts";

const MINUTES = 60_000;

/** Whether a docker engine answers; the client alone builds nothing. */
export async function dockerRuns(tools: BuildTools): Promise<boolean> {
  try {
    const asked = await runCommand(["docker", "version", "--format", "{{.Server.Version}}"], {
      ...tools.command,
      timeoutMs: 10_000,
    });
    return asked.code === 0;
  } catch (error) {
    if (Fault.is(error, "not_found", "deadline_exceeded")) return false;
    throw error;
  }
}

export function dockerEngine(tools: BuildTools): Engine {
  const run = async (...args: string[]) =>
    await mustRun(["docker", ...args], {
      ...tools.command,
      // Secrets of a build need BuildKit, which older clients leave off.
      env: { ...tools.command.env, DOCKER_BUILDKIT: "1" },
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
