// memoh host: runs the control plane, in the foreground or the background, and stops it.
import { spawn } from "node:child_process";
import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Argv } from "yargs";
import { type HostConfig, loadHostConfig } from "../../config/host-config.ts";
import { envNameOf, flagNameOf, KEYS, type KeyInfo } from "../../config/keys.ts";
import { NOT_STARTED } from "../../core/control.ts";
import { ApiClient } from "../../http/client.ts";
import { isRunning, readPidFile } from "../../lib/daemon.ts";
import { CODES, Fault } from "../../lib/fault.ts";
import { sleep } from "../../lib/signal.ts";
import type { CheckJson } from "../api-types.ts";
import type { Io } from "../io.ts";
import { withProgress } from "../progress.ts";
import { type CommonArgs, verb } from "../verb.ts";

interface HostArgs {
  readonly detach: boolean;
  readonly stop: boolean;
  readonly all: boolean;
}

/** A first start makes the database; later ones take a second. */
const READY_MS = 120_000;
const STUCK_MS = 5_000;

export const host = verb<HostArgs>({
  command: "host",
  describe: "Run the control plane (every configuration key is an option here)",
  examples: [
    ["host --detach", "start in the background and wait until it is ready"],
    ["host --http-addr 127.0.0.1:9000", "another address"],
    ["host --stop", "stop the host; bots go on"],
    ["host --stop --all", "stop the bots, memoh's containerd and its Postgres too"],
  ],
  options: (yargs) =>
    keyOptions(yargs)
      .option("detach", { alias: "d", type: "boolean", default: false, describe: "Run in the background" })
      .option("stop", { type: "boolean", default: false, describe: "Stop the running host" })
      .option("all", {
        type: "boolean",
        default: false,
        describe: "With --stop: stop everything memoh runs",
      }),
  run: async (args, io) => {
    const config = await loadHostConfig({
      instance: args.instance,
      configFile: args.config,
      flags: args,
    });
    if (args.stop) return await stop(config, args.all, io);
    if (args.detach) return await detach(config, io);
    const { runHost } = await import("../../host/run-host.ts");
    return await runHost(config, io.signal);
  },
});

/** Every key as an option, with its default, variable and meaning. */
function keyOptions(yargs: Argv<CommonArgs>): Argv<CommonArgs> {
  for (const [key, info] of Object.entries(KEYS) as [string, KeyInfo][]) {
    // A secret on a command line could be read by everybody.
    if (info.type === "secret") continue;
    const shown = Array.isArray(info.default) ? info.default.join(",") : String(info.default ?? "");
    yargs.option(flagNameOf(key), {
      type: info.type === "flag" ? "boolean" : "string",
      describe: `${info.doc} [${key}, ${envNameOf(key)}${shown === "" ? "" : `, default ${shown}`}]`,
      group: "Configuration:",
    });
  }
  return yargs;
}

/** Starts this same program in a session of its own and waits for its first ready. */
async function detach(config: HostConfig, io: Io): Promise<number> {
  const running = await readPidFile(config.pidFile);
  if (running !== undefined) {
    io.stderr.write(`The host is already running (pid ${running.pid})\n`);
    return 0;
  }
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 });
  const logPath = join(config.dataDir, "host.log");
  await using log = await open(logPath, "a", 0o640);
  const from = (await log.stat()).size;
  const args = process.argv.slice(2).filter((word) => !["--detach", "-d", "--detach=true"].includes(word));
  const child = spawn(process.execPath, [...scriptArgs(), ...args], {
    detached: true,
    cwd: "/",
    stdio: ["ignore", log.fd, log.fd],
  });
  const ended = Promise.withResolvers<number>();
  child.once("exit", (code) => {
    ended.resolve(code ?? 1);
  });
  child.once("error", () => {
    ended.resolve(1);
  });
  const ready = await withProgress(io, "Starting the host", () =>
    Promise.race([awaitReady(config, io), ended.promise.then((code) => ({ code }))]),
  );
  if ("code" in ready) {
    const text = (await readFile(logPath)).subarray(from).toString("utf8").trim();
    io.stderr.write(`${text.split("\n").slice(-5).join("\n")}\n`);
    return ready.code === 0 ? 1 : ready.code;
  }
  child.unref();
  if (ready.waitsFor.length > 0) {
    io.stderr.write(`The host is running (pid ${child.pid ?? 0}) but not ready; it keeps trying:\n`);
    for (const { name, detail, hint } of ready.waitsFor) {
      io.stderr.write(`  ${name}: ${detail}${hint === undefined ? "" : ` (${hint})`}\n`);
    }
    return CODES.unavailable.exit;
  }
  io.stderr.write(`The host is running (pid ${child.pid ?? 0}, log ${logPath})\n`);
  return 0;
}

/** Arguments that lead this runtime to this program: none in an executable, the script in the source. */
function scriptArgs(): string[] {
  const script = process.argv[1];
  return script?.endsWith("main.ts") === true || script?.endsWith(".cjs") === true
    ? [...process.execArgv, script]
    : [];
}

/** Waits until the host is ready, or until what it waits for has been missing for a while. */
async function awaitReady(config: HostConfig, io: Io): Promise<{ readonly waitsFor: readonly CheckJson[] }> {
  const api = new ApiClient(config.socketPath);
  const until = Date.now() + READY_MS;
  let triedSince: number | undefined;
  for (;;) {
    let waitsFor: readonly CheckJson[] = [{ name: "host", ok: false, detail: NOT_STARTED }];
    try {
      const answer = (await api.json({ path: "/ready", signal: io.signal, takes503: true })) as {
        checks: CheckJson[];
      };
      waitsFor = answer.checks.filter((check) => !check.ok);
    } catch (error) {
      if (!Fault.is(error, "unavailable")) throw error;
    }
    // A part that was tried and is down is reported after a few attempts; one that is being made is waited for.
    if (waitsFor.some(({ detail }) => detail !== NOT_STARTED)) triedSince ??= Date.now();
    else triedSince = undefined;
    const stuck = triedSince !== undefined && Date.now() - triedSince > STUCK_MS;
    if (waitsFor.length === 0 || stuck || Date.now() > until) return { waitsFor };
    await sleep(50, io.signal);
  }
}

async function stop(config: HostConfig, all: boolean, io: Io): Promise<number> {
  const { stopHost } = await import("../../host/stop-host.ts");
  await withProgress(io, "Stopping", () =>
    stopHost(config, { all, say: (line) => io.stderr.write(`${line}\n`) }),
  );
  const left = await readPidFile(config.pidFile);
  return left !== undefined && (await isRunning(left)) ? 1 : 0;
}
