// Verb `start`: from a clone to a running bot. Every step looks first whether it is done already.
import { spawnSync } from "node:child_process";
import { mkdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buildExecutables } from "./build.ts";
import { executablePath } from "./executable.ts";
import { CACHE, runVerb, step } from "./project.ts";

const MEMOH = executablePath("bun");
const IMAGE = "localhost/memoh/bot:latest";
const ARCHIVE = join(CACHE, "images", "bot.tar");
const BOT = "demo";
const HELLO = join(CACHE, "hello.txt");

/** Says what comes; the rest of the line is left to the program that does it. */
function say(text: string): void {
  console.log(`\n▸ ${text}`);
}

/** Runs a memoh verb as a person would, and shows the line to type. */
async function memoh(...args: string[]): Promise<void> {
  console.log(`  $ memoh ${args.map((arg) => (/^[\w./:=-]+$/.test(arg) ? arg : `'${arg}'`)).join(" ")}`);
  await step([MEMOH, ...args]);
}

/** What a verb answers as JSON; undefined when it fails. */
function ask(...args: string[]): unknown {
  const done = spawnSync(MEMOH, [...args, "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
    timeout: 60_000,
  });
  return done.status === 0 ? (JSON.parse(done.stdout) as unknown) : undefined;
}

/** Debian and its children have a mirror of their own; others start from the registry's Debian image. */
async function baseArgs(): Promise<string[]> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(release) ? ["--base", "local"] : [];
}

async function ensureImageArchive(): Promise<void> {
  await mkdir(join(CACHE, "images"), { recursive: true });
  await memoh("image", "build", ...(await baseArgs()), "--output", ARCHIVE);
}

/** Starts the host, or restarts one whose executable has been replaced by a newer build. */
async function ensureHost(): Promise<void> {
  const instance = process.env["MEMOH_INSTANCE"] ?? "memoh";
  const pidFile = await readFile(join("/run", instance, "host.pid"), "utf8").catch(() => "");
  const pid = /\d+/.exec(pidFile)?.[0];
  const exe = pid === undefined ? "" : await readlink(`/proc/${pid}/exe`).catch(() => "");
  if (exe === `${MEMOH} (deleted)`) {
    console.log("  the running host is of an earlier build: it is restarted, bots go on");
    await memoh("host", "--stop");
  }
  await memoh("host", "--detach");
}

async function ensureImage(): Promise<void> {
  const { mtimeMs, size, ino } = await stat(ARCHIVE);
  const stamp = `${mtimeMs} ${size} ${ino}`;
  const record = join(CACHE, "imported");
  const images = ask("image", "list") as { name: string }[] | undefined;
  const there = images?.some((image) => image.name === IMAGE) === true;
  if (there && (await readFile(record, "utf8").catch(() => "")) === stamp) {
    console.log(`  ${IMAGE} is there`);
    return;
  }
  await memoh("image", "import", ARCHIVE);
  await writeFile(record, stamp);
}

async function ensureBot(): Promise<void> {
  const bot = ask("bot", "show", BOT) as { state: string } | undefined;
  if (bot === undefined) await memoh("bot", "create", BOT);
  else if (bot.state !== "running") await memoh("bot", "start", BOT);
  else console.log(`  bot ${BOT} is running`);
}

async function tryIt(): Promise<void> {
  await writeFile(HELLO, `Hello from the host, ${new Date().toISOString()}\n`);
  await memoh("cp", HELLO, `${BOT}:/data/hello.txt`);
  await memoh("exec", BOT, "--", "sh", "-c", "uname -sr; whoami; wc -c hello.txt");
  await memoh("cat", BOT, "/data/hello.txt");
}

const NEXT = `
Bot ${BOT} is running. To go on, with \`alias memoh=${MEMOH}\`:
  memoh shell ${BOT}                    a shell in it
  memoh exec ${BOT} -- node --version   one command
  memoh cp ./some-folder ${BOT}:/data/  files in; the other way round: out
  memoh ls ${BOT} /data                 what is there
  memoh bot create another            more bots
  memoh --help                        everything else
  memoh doctor                        what runs where, and what is missing

To stop: npm stop (the host only) or npm stop -- --all (bots, containerd and Postgres too). Data stays.`;

await runVerb(async () => {
  const started = performance.now();
  say("building the executable");
  await buildExecutables(["bun"]);
  say("making the bot image");
  await ensureImageArchive();
  say("starting the host");
  await ensureHost();
  say("giving the image to the host");
  await ensureImage();
  say(`making bot ${BOT}`);
  await ensureBot();
  say("a file in, a command, the file back");
  await tryIt();
  console.log(NEXT);
  console.log(`\nThis took ${((performance.now() - started) / 1000).toFixed(1)} s.`);
  return 0;
});
