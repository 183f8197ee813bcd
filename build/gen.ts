// Verb `gen`: everything under src/gen that is made from files of the clone; `--check` only says whether it is current.

import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { MODULES, NODE, ROOT, runVerb, step } from "./project.ts";

const GEN = join("src", "gen");

/** What the generators read; they run in a copy, so that a run that fails or only checks leaves the clone alone. */
const INPUTS = ["proto", "migrations", "docker", "build", "buf.yaml", "buf.gen.yaml", "package.json", "src"];

const GENERATORS: readonly (readonly string[])[] = [
  [join(MODULES, ".bin", "buf"), "generate"],
  [NODE, "build/gen-migrations.ts"],
  [NODE, "build/gen-docker-files.ts"],
];

/** Generates; @returns the files of src/gen that differed from what is there */
export async function generate(check: boolean): Promise<string[]> {
  const work = await mkdtemp(join(tmpdir(), "memoh-gen-"));
  try {
    for (const input of INPUTS) {
      await cp(join(ROOT, input), join(work, input), {
        recursive: true,
        filter: (source) => !source.startsWith(join(ROOT, GEN)),
      });
    }
    await symlink(MODULES, join(work, "node_modules"));
    await mkdir(join(work, GEN), { recursive: true });
    for (const argv of GENERATORS) await step(argv, { cwd: work, quiet: true, minutes: 2 });
    const made = await filesOf(join(work, GEN));
    const here = await filesOf(join(ROOT, GEN));
    const changed = [...new Set([...made.keys(), ...here.keys()])].filter(
      (name) => made.get(name) !== here.get(name),
    );
    if (!check) {
      for (const name of changed) {
        const target = join(ROOT, GEN, name);
        const content = made.get(name);
        if (content === undefined) await rm(target);
        else {
          await mkdir(dirname(target), { recursive: true });
          await writeFile(target, content);
        }
      }
    }
    return changed.map((name) => join(GEN, name)).sort();
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function filesOf(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  if (!existsSync(folder)) return files;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) files.set(path.slice(folder.length + 1), await readFile(path, "utf8"));
  }
  return files;
}

if (import.meta.main) {
  await runVerb(async () => {
    const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });
    const changed = await generate(values.check);
    if (changed.length === 0) console.log("generated code is current");
    else if (!values.check) console.log(`generated ${changed.join(", ")}`);
    else
      throw new Error(
        `Generated code is not current: ${changed.join(", ")}\n  Run \`npm run gen\` and commit`,
      );
    return 0;
  });
}
