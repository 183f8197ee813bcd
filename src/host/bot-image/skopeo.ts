// The last step of a build: the image as one OCI archive with zstd layers.
import { rename, rm } from "node:fs/promises";
import { mustRun } from "../../lib/command.ts";
import type { EngineJob } from "./engine.ts";
import type { BuildTools } from "./tools.ts";

/** Copies an image from where skopeo finds it (`containers-storage:…`, `docker-archive:…`) into `job.output`. */
export async function packOciArchive(source: string, job: EngineJob, tools: BuildTools): Promise<void> {
  tools.progress("packing the image");
  const part = `${job.output}.part`;
  try {
    await mustRun(
      [
        // As buildah: what the store mounts over itself ends with the command.
        "unshare",
        "--mount",
        "skopeo",
        // Made here a moment ago: there is no signature to ask for.
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-compress-format=zstd",
        source,
        `oci-archive:${part}:${job.tag}`,
      ],
      {
        ...tools.command,
        env: { ...tools.command.env, TMPDIR: job.temp },
        timeoutMs: 10 * 60_000,
        group: true,
      },
    );
    await rename(part, job.output);
  } finally {
    await rm(part, { force: true });
  }
}
