// Address leases of the host-local plugin: one file per address, holding the container's id and interface.
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { isIPv4 } from "node:net";
import { join } from "node:path";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";

// Format of plugins/ipam/host-local/backend/disk (CNI plugins 0.8 to 1.9): `<id>\r\n<interface>`, created with O_EXCL.
// The directory is in memory (/run) and its files are tens of bytes, so synchronous reads are the cheap ones.

/** An address and who holds it. */
export interface Lease {
  readonly ip: string;
  /** Empty when the plugin was killed between making the file and writing it. */
  readonly containerId: string;
}

/** All leases. No directory is no lease. */
export function listLeases(dir: string): Lease[] {
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw faultFromErrno(error, `Cannot read the address leases in ${dir}`);
  }
  return names.filter(isIPv4).flatMap((ip) => {
    const containerId = leaseHolder(dir, ip);
    return containerId === undefined ? [] : [{ ip, containerId }];
  });
}

/** Who holds the address; undefined when nobody does. */
export function leaseHolder(dir: string, ip: string): string | undefined {
  try {
    return (readFileSync(join(dir, ip), "utf8").split(/\r?\n/, 1)[0] ?? "").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot read the address lease ${join(dir, ip)}`);
  }
}

/** Addresses the container holds. */
export function leasesOf(dir: string, containerId: string): string[] {
  return listLeases(dir)
    .filter((lease) => lease.containerId === containerId)
    .map((lease) => lease.ip);
}

/**
 * Frees what the container holds without the plugin. host-local locks the directory only against other copies of
 * itself; it skips files that vanish, and a container's calls are serial, so removing its own files needs no lock.
 */
export function freeLeases(dir: string, containerId: string): void {
  for (const ip of leasesOf(dir, containerId)) rmSync(join(dir, ip), { force: true });
}

/** Puts back the lease of an address in use. @returns false when another container holds it */
export function restoreLease(dir: string, ip: string, containerId: string, ifname: string): boolean {
  try {
    writeFileSync(join(dir, ip), `${containerId}\r\n${ifname}`, { flag: "wx", mode: 0o600 });
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return leaseHolder(dir, ip) === containerId;
    // The directory itself is gone: the plugin makes it again, with whatever lease comes first.
    if (errnoOf(error) === "ENOENT") return false;
    throw faultFromErrno(error, `Cannot write the address lease ${join(dir, ip)}`);
  }
}

/** Frees addresses that nobody holds: a plugin killed in the act leaves an empty file. @returns the addresses */
export function freeBlankLeases(dir: string, olderThanMs: number): string[] {
  const before = Date.now() - olderThanMs;
  return listLeases(dir)
    .filter((lease) => lease.containerId === "")
    .map((lease) => lease.ip)
    .filter((ip) => {
      const stat = statSync(join(dir, ip), { throwIfNoEntry: false });
      if (stat === undefined || stat.mtimeMs > before) return false;
      rmSync(join(dir, ip), { force: true });
      return true;
    });
}
