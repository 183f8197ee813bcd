// The free-space watermark: new work is refused before the host's disk is full.
import { statfs } from "node:fs/promises";
import { Fault } from "../lib/fault.ts";

/** Free bytes of the file system that holds a path. */
export async function freeBytes(path: string): Promise<number> {
  const stats = await statfs(path);
  return stats.bavail * stats.bsize;
}

/** @throws Fault resource_exhausted when less than `reserve` bytes are free */
export async function requireDiskSpace(path: string, reserve: number): Promise<void> {
  const free = await freeBytes(path);
  if (free >= reserve) return;
  throw new Fault(
    "resource_exhausted",
    `Cannot start new work: ${mib(free)} free below ${path}, ${mib(reserve)} are kept in reserve`,
    { hint: "Free disk space, or lower limits.disk_reserve", http: 507 },
  );
}

function mib(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}
