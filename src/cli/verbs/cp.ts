// memoh cp: files and trees, into a bot and out of it.
import { lstat, realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { ApiClient } from "../../http/client.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";
import type { FileJson } from "../api-types.ts";
import { formatBytes, type Io } from "../io.ts";
import { type Progress, withProgress } from "../progress.ts";
import { apiOf, verb } from "../verb.ts";
import { fsPath, insidePath } from "./files.ts";

/** `bot:path`, or a path of this machine. A local name with a colon is written `./a:b`. */
interface Place {
  readonly bot: string | undefined;
  readonly path: string;
}

export const cp = verb<{ from: string; to: string }>({
  command: "cp <from> <to>",
  describe: "Copy a file or directory into a bot or out of it",
  examples: [
    ["cp notes.md demo:", "to /data/notes.md"],
    ["cp ./site demo:/data/site", "a directory with everything in it"],
    ["cp demo:/data/out ./out", "out of the bot"],
  ],
  options: (yargs) =>
    yargs
      .positional("from", { type: "string", demandOption: true, describe: "PATH or BOT:PATH" })
      .positional("to", { type: "string", demandOption: true, describe: "PATH or BOT:PATH" }),
  run: async (args, io) => {
    const from = placeOf(args.from);
    const to = placeOf(args.to);
    const api = await apiOf(args);
    if (from.bot === undefined && to.bot !== undefined) await copyIn(api, from.path, to.bot, to.path, io);
    else if (from.bot !== undefined && to.bot === undefined)
      await copyOut(api, from.bot, from.path, to.path, io);
    else {
      throw new Fault("invalid_argument", "Cannot copy: exactly one side must be BOT:PATH", {
        hint: "memoh cp notes.md demo:/data/",
      });
    }
    return 0;
  },
});

function placeOf(text: string): Place {
  const match = /^([^/.:][^/:]*):(.*)$/s.exec(text);
  return match === null ? { bot: undefined, path: text } : { bot: match[1], path: match[2] ?? "" };
}

async function copyIn(api: ApiClient, source: string, bot: string, target: string, io: Io): Promise<void> {
  const local = resolve(source);
  const stats = await lstat(local).catch((error: unknown) => {
    throw faultFromErrno(error, `Cannot copy ${source}`);
  });
  const inside = insidePath(target === "" ? "." : target);
  const there = await describe(api, bot, inside, io);
  const into = there?.isDir === true || target.endsWith("/") || target === "";
  const destination = into ? join(inside, basename(await realpath(local))) : inside;
  await withProgress(io, `Copying ${source}`, async (progress) => {
    const { LocalFiles } = await import("../../agent/files/local-files.ts");
    const files = new LocalFiles({ workDir: "/" });
    if (stats.isDirectory()) {
      const tree = await files.readTree(local, { signal: io.signal });
      const written = (await api.json({
        method: "PUT",
        path: fsPath(bot, "tree", destination),
        body: counted(tree.data, progress, source),
        signal: io.signal,
      })) as { sha256: string; skipped: readonly { path: string; reason: string }[] };
      const summary = await tree.summary;
      requireSame(summary.sha256.toString("hex"), written.sha256);
      for (const skip of summary.skipped)
        io.stderr.write(`left out ${skip.path.toString()}: ${skip.reason}\n`);
      return;
    }
    const data = await files.readRaw(local, { signal: io.signal });
    await api.json({
      method: "POST",
      path: fsPath(bot, "upload", destination),
      body: counted(data, progress, source),
      signal: io.signal,
    });
  });
}

async function copyOut(api: ApiClient, bot: string, source: string, target: string, io: Io): Promise<void> {
  const inside = insidePath(source);
  const entry = await describe(api, bot, inside, io);
  if (entry === undefined) {
    throw new Fault("not_found", `Cannot copy ${bot}:${source}: no such file or directory`);
  }
  const local = resolve(target);
  const there = await lstat(local).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot copy to ${target}`);
  });
  const into = there?.isDirectory() === true || target.endsWith("/");
  const destination = into ? join(local, basename(inside)) : local;
  await withProgress(io, `Copying ${bot}:${source}`, async (progress) => {
    const { LocalFiles } = await import("../../agent/files/local-files.ts");
    // What a bot calls root's, or set-uid, is not made so on this machine.
    const files = new LocalFiles({ workDir: "/", ownership: "own" });
    await files.mkdir(dirname(destination), { signal: io.signal });
    if (entry.isDir) {
      const data = await api.stream({ path: fsPath(bot, "tree", inside), signal: io.signal });
      const written = await files.writeTree(destination, counted(data, progress, source), {
        signal: io.signal,
        conflict: "replace",
      });
      for (const skip of written.summary.skipped) {
        io.stderr.write(`left out ${skip.path.toString()}: ${skip.reason}\n`);
      }
      return;
    }
    const data = await api.stream({ path: fsPath(bot, "download", inside), signal: io.signal });
    await files.writeRaw(destination, counted(data, progress, source), { signal: io.signal });
  });
}

async function describe(api: ApiClient, bot: string, path: string, io: Io): Promise<FileJson | undefined> {
  try {
    return (await api.json({
      path: fsPath(bot, "", path).replace("/fs/?", "/fs?"),
      signal: io.signal,
    })) as FileJson;
  } catch (error) {
    // A bot that is not there is not_found too, and says so.
    if (Fault.is(error, "not_found") && !error.message.startsWith("bot ")) return undefined;
    throw error;
  }
}

async function* counted(
  data: AsyncIterable<Uint8Array>,
  progress: Progress,
  name: string,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const chunk of data) {
    bytes += chunk.length;
    progress.update(`Copying ${name}: ${formatBytes(bytes)}`);
    yield chunk;
  }
}

function requireSame(sent: string, written: string): void {
  if (sent === written) return;
  throw new Fault("data_loss", "What arrived is not what was sent", { hint: "Copy it again" });
}
