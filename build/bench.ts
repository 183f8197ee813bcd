// Verb `bench`: the executable as it is shipped, then the figures, taken under the runtime it is shipped with.
import { join } from "node:path";
import { buildExecutables } from "./build.ts";
import { BUN, ROOT, runVerb, step } from "./project.ts";

await runVerb(async () => {
  await buildExecutables(["bun"]);
  await step([BUN, join(ROOT, "test", "bench", "main.ts"), ...process.argv.slice(2)], { minutes: 60 });
  return 0;
});
