// The agent's logger: every line goes to stderr and into the ring.
import { createLogger, type Logger, type LogOptions } from "../lib/log.ts";
import { LogRing } from "./log-ring.ts";

export interface AgentLog {
  readonly log: Logger;
  readonly ring: LogRing;
}

/** @param write where lines go besides the ring; stderr when absent */
export function createAgentLog(
  options: Pick<LogOptions, "level" | "format">,
  write: (line: string) => void = (line) => void process.stderr.write(line),
): AgentLog {
  const ring = new LogRing();
  const log = createLogger({
    ...options,
    write: (line) => {
      ring.add(line);
      write(line);
    },
  });
  return { log, ring };
}
