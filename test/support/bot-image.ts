// The small bot image for tests, from this machine's own mirror: made once per clone and executable, then kept.
import { join } from "node:path";
import { CACHE } from "../../build/project.ts";
import { toolEnvironment } from "../../src/config/tool-env.ts";
import { type BuiltImage, buildBotImage } from "../../src/host/bot-image/build.ts";
import { executableUnderTest } from "./executables.ts";

/** Where tests keep what images are made from. */
export const IMAGE_WORK = join(CACHE, "image-build");

/** The OCI archive of the `test` target with the executable under test. */
export async function testImage(): Promise<BuiltImage> {
  const executable = executableUnderTest();
  return await buildBotImage({
    workDir: IMAGE_WORK,
    output: join(CACHE, "images", `test-${executable.endsWith("-node") ? "node" : "bun"}.tar`),
    base: "local",
    target: "test",
    executable,
    env: toolEnvironment(),
  });
}
