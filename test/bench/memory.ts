// Memory of processes, from /proc.
import { readdirSync, readFileSync } from "node:fs";

/** Resident and proportional set of a process, MiB. PSS shares what is shared. */
export function memoryOf(pid: number): { rss: number; pss: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN);
  return { rss: kib("Rss") / 1024, pss: kib("Pss") / 1024 };
}

/** Processes whose command line holds every one of the words. */
export function processesWith(...words: readonly string[]): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        return words.every((word) => line.includes(word));
      } catch (error) {
        // It ended while we looked.
        if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH"))
          return false;
        throw error;
      }
    });
}
