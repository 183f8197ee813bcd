// Image builds with buildah: no daemon, a store of its own, so that nothing else on the machine sees these images.
import { createHash } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { mustRun, runCommand } from "../../lib/command.ts";
import { type Engine, type EngineJob, explainBuild } from "./engine.ts";
import type { LocalBase } from "./local-base.ts";
import { packOciArchive } from "./skopeo.ts";
import type { BuildTools } from "./tools.ts";

const MINUTES = 60_000;

/** A private image store and the command line that uses it. */
interface Store {
  readonly driver: string;
  readonly root: string;
  readonly runRoot: string;
  readonly argv: readonly string[];
}

/** @param folder where the store is kept between builds */
export function buildahEngine(folder: string, tools: BuildTools): Engine {
  return {
    name: "buildah",
    build: async (job) => {
      const store = await openStore(folder, job.temp, tools);
      const base = typeof job.base === "string" ? job.base : await importBase(store, job.base, tools);
      tools.progress("building the image with buildah");
      await mustRun(
        [
          ...store.argv,
          "bud",
          "--layers",
          // No container runtime is asked for: whichever the machine has may not fit its cgroups.
          "--isolation=chroot",
          "--network=host",
          ...(typeof job.base === "string" ? ["--pull"] : ["--pull-never"]),
          ...(job.fresh ? ["--no-cache"] : []),
          ...(job.extraCa === undefined ? [] : [`--secret=id=extra_ca,src=${job.extraCa}`]),
          `--build-arg=BASE=${base}`,
          `--target=${job.target}`,
          `--tag=${job.tag}`,
          job.context,
        ],
        withTemp(tools, job),
      ).catch((error: unknown) => {
        throw explainBuild(error, job.base);
      });
      await packOciArchive(
        `containers-storage:[${store.driver}@${store.root}+${store.runRoot}]${job.tag}`,
        job,
        tools,
      );
      // What the last build of this name left: each holds an executable of its own.
      await mustRun([...store.argv, "rmi", "--prune"], withTemp(tools, job));
    },
  };
}

function withTemp(tools: BuildTools, job: Pick<EngineJob, "temp">) {
  const env = { ...tools.command.env, TMPDIR: job.temp };
  return { ...tools.command, env, timeoutMs: 20 * MINUTES, group: true };
}

/** Overlay where the file system can carry it, else plain copies of every layer. */
async function openStore(folder: string, temp: string, tools: BuildTools): Promise<Store> {
  // Mount counts belong to one boot, so they live below /run; its name is short and belongs to this store.
  const runRoot = join(
    "/run",
    `memoh-image-${createHash("sha256").update(folder).digest("hex").slice(0, 12)}`,
  );
  for (const driver of ["overlay", "vfs"]) {
    const root = join(folder, driver);
    await mkdir(root, { recursive: true, mode: 0o700 });
    // In a mount namespace of its own: the store's private mount over itself ends with the command.
    const store = { driver, root, runRoot: `${runRoot}-${driver}` };
    const argv = [
      "unshare",
      "--mount",
      "buildah",
      "--root",
      root,
      "--runroot",
      store.runRoot,
      "--storage-driver",
      driver,
    ];
    if (driver === "vfs") return { ...store, argv };
    const probe = await runCommand([...argv, "images", "--quiet"], withTemp(tools, { temp }));
    if (probe.code === 0) return { ...store, argv };
    await rm(root, { recursive: true, force: true });
  }
  throw new Error("unreachable");
}

/** The base as an image of the store; the same base is imported once. */
async function importBase(store: Store, base: LocalBase, tools: BuildTools): Promise<string> {
  const name = `localhost/memoh/base:${base.key}`;
  const stamp = base.made;
  const run = async (...args: string[]) =>
    await mustRun([...store.argv, ...args], { ...tools.command, timeoutMs: 5 * MINUTES, group: true });
  const there = await runCommand(
    [
      ...store.argv,
      "inspect",
      "--type=image",
      "--format",
      '{{index .OCIv1.Config.Labels "memoh.base"}}',
      name,
    ],
    tools.command,
  );
  if (there.code === 0 && there.stdout.trim() === stamp) return name;
  tools.progress("importing the base");
  const container = (await run("from", "scratch")).stdout.trim();
  try {
    await run("add", "--quiet", container, base.archive, "/");
    await run(
      "config",
      "--cmd=/bin/bash",
      "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      `--label=memoh.base=${stamp}`,
      container,
    );
    await run("commit", "--quiet", container, name);
  } finally {
    await run("rm", container);
  }
  return name;
}
