// Verb `ok`: everything that must hold before a change is handed on, ending with the built file in an empty folder.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildExecutables } from "./build.ts";
import { executablePath } from "./executable.ts";
import { generate } from "./gen.ts";
import { MODULES, NODE, ROOT, runVerb, step } from "./project.ts";

await runVerb(async () => {
  const bin = (name: string) => join(MODULES, ".bin", name);
  const changed = await generate(false);
  console.log(changed.length === 0 ? "generated code was current" : `generated ${changed.join(", ")}`);
  await step([bin("biome"), "ci", "--linter-enabled=false", "."]);
  await step([bin("oxlint"), "--type-aware", "--deny-warnings"]);
  await step([bin("tsc"), "-p", "."]);
  await step([NODE, join(ROOT, "build", "run-tests.ts")], { minutes: 40 });
  await buildExecutables(["bun", "node"]);
  const empty = await mkdtemp(join(tmpdir(), "memoh-ok-"));
  try {
    for (const runtime of ["bun", "node"] as const) {
      const said = await step([executablePath(runtime), "--version"], { cwd: empty, quiet: true });
      console.log(said.trim());
    }
  } finally {
    await rm(empty, { recursive: true, force: true });
  }
  console.log("ok");
  return 0;
});
