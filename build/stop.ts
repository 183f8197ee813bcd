// Verb `stop`: stops the host that `start` started; what goes on running is said by the host's own verb.
import { existsSync } from "node:fs";
import { executablePath } from "./executable.ts";
import { runVerb, step } from "./project.ts";

await runVerb(async () => {
  const memoh = executablePath("bun");
  if (!existsSync(memoh)) {
    console.log("Nothing was built here, so nothing was started from here");
    return 0;
  }
  await step([memoh, "host", "--stop", ...process.argv.slice(2)]);
  return 0;
});
