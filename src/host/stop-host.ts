// memoh host --stop: ends the host, and with --all everything memoh runs on this machine. Says what stays.
import type { HostConfig } from "../config/host-config.ts";
import { readPidFile, stopProcess } from "../lib/daemon.ts";
import { Fault } from "../lib/fault.ts";
import { silentLogger } from "../lib/log.ts";
import { composeStop } from "./compose.ts";

const HOST_GRACE_MS = 20_000;

/** Stops a running host. None running is success. */
export async function stopHost(
  config: HostConfig,
  options: { readonly all: boolean; readonly say: (line: string) => void },
): Promise<void> {
  const running = await readPidFile(config.pidFile);
  if (running === undefined) options.say("No host is running");
  else {
    await stopProcess(running, HOST_GRACE_MS);
    options.say(`Stopped the host (pid ${running.pid})`);
  }
  const machine = await composeStop(config, silentLogger());
  if (!options.all) {
    const left = [
      ...(machine.bots > 0 ? [`${machine.bots} bots`] : []),
      ...(machine.containerd ? ["containerd"] : []),
      ...(machine.postgres ? ["Postgres"] : []),
    ];
    if (left.length > 0)
      options.say(`Still running: ${left.join(", ")} (memoh host --stop --all stops them too)`);
    return;
  }
  const failures = await machine.stopAll(options.say);
  if (failures.length > 0) {
    throw new Fault("unavailable", `Cannot stop everything: ${failures.join("; ")}`, {
      hint: "Run it again; memoh doctor tells what is left",
    });
  }
}
