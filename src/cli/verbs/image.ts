// memoh image: build, import, pull, list, remove, normalize.
import { resolve } from "node:path";
import { normalizeImageRef } from "../../core/image-ref.ts";
import type { ImageJson, Items } from "../api-types.ts";
import { followLines } from "../image-lines.ts";
import { formatAge, formatBytes, type Io, printJson, printTable, writeOut } from "../io.ts";
import { withProgress } from "../progress.ts";
import { apiOf, group, jsonOption, verb } from "../verb.ts";
import { build } from "./image-build.ts";

async function printImages(io: Io, images: readonly ImageJson[], json: boolean): Promise<void> {
  if (json) await printJson(io, images);
  else {
    await printTable(
      io,
      ["NAME", "DIGEST", "PLATFORM", "SIZE", "AGE"],
      images.map((image) => [
        image.name,
        image.digest.slice(0, 19),
        image.platform,
        formatBytes(image.size),
        formatAge(image.created_at),
      ]),
    );
  }
}

const list = verb<{ json: boolean }>({
  command: "list",
  describe: "List images",
  examples: [["image list", "what bots can be made from"]],
  options: (yargs) => jsonOption(yargs),
  run: async (args, io) => {
    const { items } = (await (
      await apiOf(args)
    ).json({
      path: "/images",
      signal: io.signal,
    })) as Items<ImageJson>;
    await printImages(io, items, args.json);
    return 0;
  },
});

const pull = verb<{ ref: string; always: boolean; json: boolean }>({
  command: "pull <ref>",
  describe: "Pull an image from its registry",
  examples: [["image pull debian:12", "docker.io/library/debian:12"]],
  options: (yargs) =>
    jsonOption(yargs)
      .positional("ref", { type: "string", demandOption: true, describe: "Image reference" })
      .option("always", {
        type: "boolean",
        default: false,
        describe: "Ask the registry even when it is here",
      }),
  run: async (args, io) => {
    const api = await apiOf(args);
    const images = await withProgress(io, `Pulling ${args.ref}`, (progress) =>
      followLines(
        api,
        {
          method: "POST",
          path: "/images/pull",
          json: { ref: args.ref, always: args.always },
          signal: io.signal,
        },
        progress,
      ),
    );
    await printImages(io, images, args.json);
    return 0;
  },
});

const imported = verb<{ archive: string; name?: string | undefined; json: boolean }>({
  command: "import <archive>",
  describe: "Import an OCI or docker archive",
  examples: [["image import bot.tar --name my/bot:1", "under another name"]],
  options: (yargs) =>
    jsonOption(yargs)
      .positional("archive", { type: "string", demandOption: true, describe: "The tar file" })
      .option("name", { type: "string", describe: "Name it gets; its own otherwise" }),
  run: async (args, io) => {
    const api = await apiOf(args);
    const images = await withProgress(io, `Importing ${args.archive}`, (progress) =>
      followLines(
        api,
        {
          method: "POST",
          path: "/images/import",
          json: { path: resolve(args.archive), name: args.name },
          signal: io.signal,
        },
        progress,
      ),
    );
    await printImages(io, images, args.json);
    return 0;
  },
});

const remove = verb<{ ref: string }>({
  command: "remove <ref>",
  describe: "Remove an image; bots made from it keep working",
  examples: [["image remove debian:12", "by name"]],
  options: (yargs) =>
    yargs.positional("ref", { type: "string", demandOption: true, describe: "Image reference" }),
  run: async (args, io) => {
    await (await apiOf(args)).json({
      method: "DELETE",
      path: `/images?${new URLSearchParams({ ref: args.ref }).toString()}`,
      signal: io.signal,
    });
    io.stderr.write(`Removed ${normalizeImageRef(args.ref)}\n`);
    return 0;
  },
});

const normalize = verb<{ ref: string }>({
  command: "normalize <ref>",
  describe: "Print the full form of an image reference",
  examples: [["image normalize alpine:3", "docker.io/library/alpine:3"]],
  options: (yargs) =>
    yargs.positional("ref", { type: "string", demandOption: true, describe: "Image reference" }),
  run: async (args, io) => {
    await writeOut(io.stdout, `${normalizeImageRef(args.ref)}\n`);
    return 0;
  },
});

export const image = group("image", "Build, import, pull, list and remove images", [
  build,
  imported,
  pull,
  list,
  remove,
  normalize,
]);
