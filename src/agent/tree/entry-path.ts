// Where an entry of a tar wants to go, checked before anything is touched.
import type { TreeEntry } from "../../core/tree-hash.ts";
import { Fault } from "../../lib/fault.ts";
import { type BytePath, shown } from "../files/byte-path.ts";

/**
 * The entry with clean paths: names joined by single slashes, `.` for the root.
 * @throws Fault invalid_argument for absolute paths, `..` and NUL bytes, in its own name or in that of a hard link
 */
export function checkedEntry(entry: TreeEntry): TreeEntry {
  const path = checkedPath(entry.path, entry.path);
  if (entry.type === "link") return { ...entry, path, link: checkedPath(entry.link, entry.path) };
  if (entry.type === "symlink" && (entry.link === "" || entry.link.includes("\0"))) {
    throw new Fault("invalid_argument", `tree: ${shown(entry.path)}: the link has no target`);
  }
  return { ...entry, path };
}

/** The names from the root down to a clean path; none for the root itself. */
export function namesOf(path: BytePath): readonly BytePath[] {
  return path === "." ? [] : path.split("/");
}

function checkedPath(path: BytePath, entry: BytePath): BytePath {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (path === "" || path.startsWith("/") || names.includes("..") || path.includes("\0")) {
    throw new Fault("invalid_argument", `tree: ${shown(entry)}: the entry leads out of the tree`, {
      hint: "Make the tar with paths relative to its root and without ..",
    });
  }
  return names.length === 0 ? "." : names.join("/");
}
