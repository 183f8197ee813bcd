// The image's base without a registry: a minimal Debian made from the mirror this machine itself is installed from.
import { createHash, randomUUID } from "node:crypto";
import { access, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mustRun } from "../../lib/command.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import { readAptSources } from "./apt-sources.ts";
import { type BuildTools, requireProgram } from "./tools.ts";

/** A root file system as a tar file. */
export interface LocalBase {
  readonly archive: string;
  /** Of the sources and the recipe. */
  readonly key: string;
  /** When it was made: a base made anew from the same sources is another one. */
  readonly made: string;
}

/** What is left out, as in the slim images. */
const RECIPE = [
  "--variant=apt",
  "--mode=root",
  '--aptopt=Acquire::Languages "none"',
  "--dpkgopt=path-exclude=/usr/share/man/*",
  "--dpkgopt=path-exclude=/usr/share/locale/*",
  "--dpkgopt=path-exclude=/usr/share/doc/*",
  "--dpkgopt=path-include=/usr/share/doc/*/copyright",
];

/** Days after which a kept base is made anew, for the security updates since. */
const MAX_AGE_DAYS = 14;

/**
 * Makes the base below `folder`, or takes the one made before from the same sources.
 * @throws Fault failed_precondition when mmdebstrap or a Debian source is missing
 */
export async function localBase(folder: string, tools: BuildTools, fresh: boolean): Promise<LocalBase> {
  const sources = readAptSources(await sourceFiles(), await readFile("/etc/os-release", "utf8"));
  if (sources === undefined) {
    throw new Fault(
      "failed_precondition",
      "Cannot make a base: this machine has no Debian source for its own release",
      {
        hint: "Give the base as an image instead: --base docker.io/library/debian:bookworm-slim",
      },
    );
  }
  const key = createHash("sha256")
    .update(JSON.stringify([RECIPE, sources]))
    .digest("hex")
    .slice(0, 16);
  const archive = join(folder, `${key}.tar`);
  const kept = await madeAt(archive);
  if (!fresh && kept !== undefined && Date.now() - kept.getTime() < MAX_AGE_DAYS * 86_400_000) {
    return { archive, key, made: kept.toISOString() };
  }
  await requireProgram("mmdebstrap", tools);
  tools.progress(`making a base from this machine's Debian mirror (${sources.codename}; half a minute)`);
  await mkdir(folder, { recursive: true });
  const part = join(folder, `.${randomUUID()}.tar`);
  const list = join(folder, `.${randomUUID()}.sources`);
  try {
    await writeFile(list, sources.deb822);
    await mustRun(["mmdebstrap", ...RECIPE, sources.codename, part, list], {
      ...tools.command,
      timeoutMs: 15 * 60_000,
      group: true,
    });
    await rename(part, archive);
  } finally {
    await rm(part, { force: true });
    await rm(list, { force: true });
  }
  for (const name of await readdir(folder)) {
    if (/^[0-9a-f]{16}\.tar$/.test(name) && name !== `${key}.tar`) await rm(join(folder, name));
  }
  const made = (await madeAt(archive)) ?? new Date();
  return { archive, key, made: made.toISOString() };
}

async function madeAt(archive: string): Promise<Date | undefined> {
  try {
    return (await stat(archive)).mtime;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot look at ${archive}`);
  }
}

async function sourceFiles(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const folder = "/etc/apt/sources.list.d";
  const paths = ["/etc/apt/sources.list"];
  try {
    for (const name of (await readdir(folder)).sort()) {
      if (name.endsWith(".list") || name.endsWith(".sources")) paths.push(join(folder, name));
    }
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw faultFromErrno(error, `Cannot read ${folder}`);
  }
  for (const path of paths) {
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there) files.set(path, await readFile(path, "utf8"));
  }
  return files;
}
