// The one line that says which build this is.
import { buildInfo } from "../lib/build-info.ts";

/** `memoh 0.1.0 (commit abc1234, bun 1.4.5)` */
export function versionLine(): string {
  return `memoh ${buildInfo.version} (commit ${buildInfo.commit}, ${buildInfo.runtime})`;
}
