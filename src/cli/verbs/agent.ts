// memoh agent: only its help; main.ts runs the agent itself before the CLI is loaded.
import { verb } from "../verb.ts";

export const agentHelp = verb<{
  insecure: boolean;
  listen?: string | undefined;
  "work-dir"?: string | undefined;
}>({
  command: "agent",
  describe: "Serve files and commands of this machine over gRPC (the entrypoint inside bots)",
  examples: [
    ["agent --insecure --listen 127.0.0.1:9090 --work-dir /tmp/work", "to try it, on loopback only"],
    ["agent --listen unix:/run/agent.sock --work-dir /tmp/work", "on a unix socket"],
  ],
  options: (yargs) =>
    yargs
      .option("insecure", { type: "boolean", default: false, describe: "Without TLS; loopback only" })
      .option("listen", { type: "string", describe: "host:port or unix:/path" })
      .option("work-dir", { type: "string", describe: "What relative paths are below (default /data)" }),
  run: () => Promise.resolve(0),
});
