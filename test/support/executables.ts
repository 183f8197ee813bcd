// The executables under test: built before the tests run, never by them.
import { existsSync } from "node:fs";
import { executablePath, type Runtime } from "../../build/executable.ts";

/** The built executable of a runtime. @throws Error that says to build it */
export function builtExecutable(runtime: Runtime): string {
  const path = executablePath(runtime);
  if (!existsSync(path))
    throw new Error(`There is no ${path}: run \`npm run build -- --runtime ${runtime}\``);
  return path;
}
