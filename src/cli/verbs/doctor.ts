// memoh doctor: names each missing part and what to do; works with and without a running host.
import { loadHostConfig } from "../../config/host-config.ts";
import { ApiClient } from "../../http/client.ts";
import { Fault } from "../../lib/fault.ts";
import type { CheckJson } from "../api-types.ts";
import { printJson, printTable } from "../io.ts";
import { jsonOption, verb } from "../verb.ts";

export const doctor = verb<{ json: boolean }>({
  command: "doctor",
  describe: "Check everything memoh needs and say what to do",
  examples: [
    ["doctor", "a table; exits 1 when something is wrong"],
    ["doctor --json", "with the HTTP address"],
  ],
  options: (yargs) => jsonOption(yargs),
  run: async (args, io) => {
    const config = await loadHostConfig({ instance: args.instance, configFile: args.config });
    let checks: readonly CheckJson[];
    let running = true;
    try {
      const answer = await new ApiClient(config.socketPath).json({ path: "/doctor", signal: io.signal });
      ({ checks } = answer as { checks: CheckJson[] });
    } catch (error) {
      if (!Fault.is(error, "unavailable")) throw error;
      running = false;
      const { machineChecks } = await import("../../host/machine-check.ts");
      checks = await machineChecks(config);
    }
    checks = [
      ...checks,
      {
        name: "host",
        ok: running,
        detail: running ? `answers at ${config.socketPath}` : "not running",
        ...(running ? {} : { hint: "Start it: memoh host --detach" }),
      },
    ];
    if (args.json) {
      await printJson(io, {
        instance: config.instance,
        http: config.http.addr === "" ? null : `http://${config.http.addr}`,
        socket: config.socketPath,
        running,
        ok: checks.every((check) => check.ok),
        checks,
      });
    } else {
      await printTable(
        io,
        ["CHECK", "OK", "FOUND", "WHAT TO DO"],
        checks.map((check) => [check.name, check.ok ? "yes" : "NO", check.detail, check.hint ?? ""]),
      );
    }
    return checks.every((check) => check.ok) ? 0 : 1;
  },
});
