// Other versions of containerd for tests: Debian's packages of newer suites, unpacked beside the system, never into it.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { mustRun } from "../../src/lib/command.ts";

/** `installed` is the machine's own; the others are what these Debian suites carry. */
export type ContainerdVersion = "installed" | "1.7" | "2";

const SUITES: Readonly<Record<Exclude<ContainerdVersion, "installed">, string>> = {
  "1.7": "trixie",
  "2": "forky",
};

/**
 * Directory that holds containerd and its shim, or undefined for the installed version. Downloaded once per machine
 * into ~/.cache/memoh-test, from the mirror the machine itself is configured with.
 */
export async function containerdBin(version: ContainerdVersion): Promise<string | undefined> {
  if (version === "installed") return undefined;
  const suite = SUITES[version];
  const cache = join(homedir(), ".cache", "memoh-test");
  const ready = join(cache, `containerd-${suite}`);
  if (!existsSync(join(ready, "usr/bin/containerd"))) {
    await mkdir(cache, { recursive: true });
    const work = await mkdtemp(join(cache, `.containerd-${suite}-`));
    try {
      await download(suite, work);
      // Another test may have been faster; its copy is as good.
      await rename(join(work, "root"), ready).catch((error: unknown) => {
        if (!existsSync(join(ready, "usr/bin/containerd"))) throw error;
      });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  return join(ready, "usr/bin");
}

async function download(suite: string, work: string): Promise<void> {
  for (const directory of ["lists/partial", "archives/partial", "etc", "out", "root"]) {
    await mkdir(join(work, directory), { recursive: true });
  }
  const source = [
    "Types: deb",
    `URIs: ${await debianMirror()}`,
    `Suites: ${suite}`,
    "Components: main",
    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg",
    "",
  ].join("\n");
  await writeFile(join(work, "etc/suite.sources"), source);
  const options = [
    "Dir::Etc::sourcelist=/dev/null",
    `Dir::Etc::sourceparts=${work}/etc`,
    `Dir::State::lists=${work}/lists`,
    `Dir::Cache=${work}`,
    `Dir::Cache::archives=${work}/archives`,
    "APT::Sandbox::User=root",
  ].flatMap((option) => ["-o", option]);
  await mustRun(["apt-get", ...options, "update"], { timeoutMs: 120_000 });
  await mustRun(["apt-get", ...options, "download", "containerd"], {
    cwd: join(work, "out"),
    timeoutMs: 300_000,
  });
  for (const name of await readdir(join(work, "out"))) {
    await mustRun(["dpkg", "-x", join(work, "out", name), join(work, "root")]);
  }
}

/** The first mirror of apt's own configuration, in either of its two formats. */
async function debianMirror(): Promise<string> {
  const parts = "/etc/apt/sources.list.d";
  const files = existsSync(parts) ? (await readdir(parts)).map((name) => join(parts, name)) : [];
  for (const file of [...files, "/etc/apt/sources.list"]) {
    if (!/\.(sources|list)$/.test(file) || !existsSync(file)) continue;
    const text = await readFile(file, "utf8");
    const uri =
      /^URIs:\s*(\S+)/m.exec(text)?.[1] ??
      /^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(?:bookworm|trixie)/m.exec(text)?.[1];
    if (uri !== undefined) return uri;
  }
  throw new Error("no Debian mirror is configured in /etc/apt");
}
