// Makes a directory and its missing parents.
import { mkdir, stat } from "node:fs/promises";
import { errnoOf } from "../../lib/errno.ts";
import { type BytePath, fsPath, parentOf } from "./byte-path.ts";
import { type Doing, during, fileFault, pathFault } from "./file-fault.ts";

/**
 * `mkdir -p` with mode 0755 less the umask; links to directories count as directories.
 * @throws Fault failed_precondition where something else has the name, permission_denied, resource_exhausted
 */
export async function makeDirs(path: BytePath, doing: Doing = "mkdir"): Promise<void> {
  const missing: BytePath[] = [];
  let at = path;
  while (!(await makeDir(at, path, doing))) {
    missing.push(at);
    at = parentOf(at);
  }
  for (const directory of missing.reverse()) {
    if (!(await makeDir(directory, path, doing))) {
      throw pathFault("aborted", doing, path, "a parent was removed meanwhile", "Try again");
    }
  }
}

/** @returns false when the parent is missing */
async function makeDir(at: BytePath, asked: BytePath, doing: Doing): Promise<boolean> {
  try {
    await mkdir(fsPath(at), { mode: 0o755 });
    return true;
  } catch (error) {
    switch (errnoOf(error)) {
      case "ENOENT":
        return false;
      case "EEXIST":
      case "EISDIR":
        if (await during(doing, asked, async () => await isDirectory(at))) return true;
        throw pathFault(
          "failed_precondition",
          doing,
          asked,
          `${at === asked ? "it" : "a parent"} exists and is not a directory`,
        );
      default:
        throw fileFault(error, doing, asked);
    }
  }
}

async function isDirectory(path: BytePath): Promise<boolean> {
  try {
    return (await stat(fsPath(path))).isDirectory();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
