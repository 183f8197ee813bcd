// Finds a namespace whose name was unmounted while a bot still lives in it, and names it again.
import { readdir, readlink } from "node:fs/promises";
import { deleteNetns, isNetns, mountNetns, netnsInode } from "./netns.ts";

/**
 * Mounts the namespace with that inode on the path again, if a process lives in it. The inode is that very namespace
 * as long as something of it is alive, which the caller knows from the other end of its veth pair.
 * @returns whether the path is that namespace now
 */
export async function remountNetns(path: string, inode: string, signal?: AbortSignal): Promise<boolean> {
  const process = await processIn(inode);
  if (process === undefined) return false;
  await mountNetns(`/proc/${process}/ns/net`, path, signal);
  if ((await isNetns(path)) && (await netnsInode(path)) === inode) return true;
  // The process ended in between and its id went to another.
  await deleteNetns(path, signal);
  return false;
}

async function processIn(inode: string): Promise<string | undefined> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      try {
        return (await readlink(`/proc/${pid}/ns/net`)) === `net:[${inode}]` ? pid : undefined;
      } catch {
        // It ended meanwhile, or is a zombie.
        return undefined;
      }
    }),
  );
  return found.find((pid) => pid !== undefined);
}
