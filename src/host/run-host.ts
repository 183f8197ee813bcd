// memoh host in the foreground: checks the machine, takes the lock, runs until told to stop.
import { mkdir, rm } from "node:fs/promises";
import type { HostConfig } from "../config/host-config.ts";
import { buildInfo } from "../lib/build-info.ts";
import { identify, writePidFile } from "../lib/daemon.ts";
import { createLogger } from "../lib/log.ts";
import { composeHost } from "./compose.ts";
import { holdHostLock } from "./host-lock.ts";
import { requireMachine } from "./machine-check.ts";

/** Runs a host until the signal aborts. @returns the exit status */
export async function runHost(config: HostConfig, signal: AbortSignal): Promise<number> {
  const log = createLogger({ level: config.log.level, format: config.log.format });
  await requireMachine(config);
  await mkdir(config.runDir, { recursive: true, mode: 0o711 });
  await using lock = await holdHostLock(config.runDir);
  void lock;
  await using host = await composeHost(config, log);
  const self = await identify(process.pid);
  if (self !== undefined) await writePidFile(config.pidFile, self);
  try {
    log.info(
      { ...buildInfo, instance: config.instance, http: host.http.address, socket: config.socketPath },
      "memoh host is listening",
    );
    await host.run(signal);
    log.info("memoh host is stopping; bots go on");
    return 0;
  } finally {
    await rm(config.pidFile, { force: true });
  }
}
