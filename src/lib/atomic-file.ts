// Files of the host replaced as a whole: temp, fsync, rename, fsync of the directory.
import { randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

/**
 * Writes a file so that a reader, or a crash, sees the old content or the new, never a part. Mode is exact.
 * @param durable false leaves out the fsyncs, for files that are written again after a crash anyway
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array,
  mode = 0o644,
  durable = true,
): Promise<void> {
  const directory = dirname(path);
  const temp = join(directory, `.memoh-tmp-${randomUUID()}`);
  try {
    await using file = await open(temp, "wx", mode);
    await file.writeFile(content);
    await file.chmod(mode);
    if (durable) await file.sync();
    await rename(temp, path);
  } catch (error) {
    await rm(temp, { force: true });
    throw error;
  }
  if (!durable) return;
  await using handle = await open(directory, "r");
  await handle.sync();
}
