// Packages that only a cross build needs: fetched by npm into .cache, never part of node_modules.
import { access, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CACHE, step } from "./project.ts";

/** The unpacked package; fetched with the machine's own npm configuration, which checks its integrity. */
export async function npmPackage(name: string, version: string): Promise<string> {
  const parent = join(CACHE, "npm");
  const place = join(parent, `${name.replaceAll("/", "+")}@${version}`);
  if (await exists(place)) return place;
  const work = `${place}.${process.pid}`;
  await mkdir(work, { recursive: true });
  try {
    await step(
      [
        "npm",
        "pack",
        "--silent",
        "--fetch-timeout=60000",
        `--pack-destination=${work}`,
        `${name}@${version}`,
      ],
      { quiet: true, cwd: work },
    );
    const archive = (await readdir(work)).find((file) => file.endsWith(".tgz"));
    if (archive === undefined) throw new Error(`npm pack ${name}@${version} left no archive`);
    await step(["tar", "-xzf", join(work, archive), "-C", work], { quiet: true });
    await rename(join(work, "package"), place);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return place;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
