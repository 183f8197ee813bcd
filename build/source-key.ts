// What a build is made from, as one hash: an unchanged clone is not built twice.
import { createHash } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CACHE, commit, ROOT } from "./project.ts";

/** Hash of the sources, the locked dependencies, the build itself and the commit. */
async function sourceKey(): Promise<string> {
  const hash = createHash("sha256").update(commit());
  const files = ["package.json", "package-lock.json"];
  for (const folder of ["src", "build"]) {
    for (const entry of await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) files.push(join(entry.parentPath, entry.name).slice(ROOT.length + 1));
    }
  }
  for (const file of files.sort()) {
    hash.update(`\0${file}\0`).update(
      createHash("sha256")
        .update(await readFile(join(ROOT, file)))
        .digest(),
    );
  }
  return hash.digest("hex");
}

/** Runs `make` unless the file it made last time is there untouched and nothing it is made from has changed. */
export async function unlessCurrent(output: string, make: () => Promise<unknown>): Promise<boolean> {
  const record = join(CACHE, `built-${output.slice(ROOT.length + 1).replaceAll("/", "-")}`);
  const key = await sourceKey();
  const stamp = async () => {
    const { size, mtimeMs, ino } = await stat(output);
    return `${key} ${size} ${mtimeMs} ${ino}`;
  };
  const recorded = await readFile(record, "utf8").catch(() => "");
  if (recorded !== "" && recorded === (await stamp().catch(() => "absent"))) return false;
  await make();
  await writeFile(record, await stamp());
  return true;
}
