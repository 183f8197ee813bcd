// memoh image build: makes the bot image on this machine and gives it to the host, or writes it to a file.
import { join, resolve } from "node:path";
import { loadHostConfig } from "../../config/host-config.ts";
import { toolEnvironment } from "../../config/tool-env.ts";
import { normalizeImageRef } from "../../core/image-ref.ts";
import { followLines } from "../image-lines.ts";
import { formatBytes, printJson } from "../io.ts";
import { withProgress } from "../progress.ts";
import { apiOf, jsonOption, verb } from "../verb.ts";

interface BuildArgs {
  readonly base?: string | undefined;
  readonly output?: string | undefined;
  readonly name?: string | undefined;
  readonly target: "bot" | "test";
  readonly engine?: "docker" | "buildah" | undefined;
  readonly ca?: string | undefined;
  readonly fresh: boolean;
  readonly json: boolean;
}

export const build = verb<BuildArgs>({
  command: "build",
  describe: "Build the bot image with docker or buildah",
  examples: [
    ["image build", "from the Debian image of the registry, given to the host"],
    ["image build --base local", "without a registry: from this machine's own Debian mirror"],
    ["image build --output bot.tar", "into an OCI archive; no host needed"],
  ],
  options: (yargs) =>
    jsonOption(yargs)
      .option("base", { type: "string", describe: "Debian image to start from, or `local`" })
      .option("output", {
        alias: "o",
        type: "string",
        describe: "Write an OCI archive instead of importing it",
      })
      .option("name", {
        type: "string",
        describe: "Name of the image (default localhost/memoh/bot:latest, :test for the test target)",
      })
      .option("target", {
        choices: ["bot", "test"] as const,
        default: "bot" as const,
        describe: "`test` is small: no Node, no Python",
      })
      .option("engine", { choices: ["docker", "buildah"] as const, describe: "The one that runs otherwise" })
      .option("ca", { type: "string", describe: "PEM file with further CAs while building" })
      .option("fresh", { type: "boolean", default: false, describe: "Take nothing from earlier builds" }),
  run: async (args, io) => {
    const { buildBotImage } = await import("../../host/bot-image/build.ts");
    const config = await loadHostConfig({ instance: args.instance, configFile: args.config });
    const workDir = join(config.dataDir, "image-build");
    const api = args.output === undefined ? await apiOf(args) : undefined;
    // A host that is not there is told before minutes of building, not after.
    await api?.json({ path: "/ready", signal: io.signal });
    const built = await withProgress(io, "Building the image", (progress) =>
      buildBotImage({
        workDir,
        output: args.output === undefined ? join(workDir, `${args.target}.tar`) : resolve(args.output),
        base: args.base === undefined || args.base === "local" ? args.base : normalizeImageRef(args.base),
        name: args.name === undefined ? undefined : normalizeImageRef(args.name),
        target: args.target,
        engine: args.engine,
        extraCa: args.ca === undefined ? undefined : resolve(args.ca),
        fresh: args.fresh,
        env: toolEnvironment(),
        signal: io.signal,
        onProgress: (text) => {
          progress.update(text);
        },
      }),
    );
    if (api !== undefined) {
      await withProgress(io, `Importing ${built.name}`, (progress) =>
        followLines(
          api,
          {
            method: "POST",
            path: "/images/import",
            json: { path: built.archive, name: built.name },
            signal: io.signal,
          },
          progress,
        ),
      );
    }
    if (args.json) await printJson(io, built);
    else {
      const what = built.cached ? "Nothing has changed since the last build of" : "Built";
      io.stderr.write(
        `${what} ${built.name}${api === undefined ? "" : ", imported"} (${formatBytes(built.bytes)}, ${built.archive})\n`,
      );
    }
    return 0;
  },
});
