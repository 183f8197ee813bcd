// How Go prints a file's mode and time: the two text fields of a FileEntry, as the original fills them.

/** Letters of the file types in st_mode's upper four bits; a regular file has none. */
const TYPE_LETTERS: Readonly<Record<number, string>> = {
  0o140000: "S",
  0o120000: "L",
  0o060000: "D",
  0o040000: "d",
  0o020000: "Dc",
  0o010000: "p",
};

/** Go's `FileMode.String` of an st_mode: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `dtrwxrwxrwx`, `urwxr-xr-x`. */
export function goMode(mode: number): string {
  const type = TYPE_LETTERS[mode & 0o170000] ?? "";
  // Go's order of letters is d L D p S u g c t.
  const letters =
    (type === "Dc" ? "D" : type) +
    ((mode & 0o4000) === 0 ? "" : "u") +
    ((mode & 0o2000) === 0 ? "" : "g") +
    (type === "Dc" ? "c" : "") +
    ((mode & 0o1000) === 0 ? "" : "t");
  let text = letters === "" ? "-" : letters;
  for (let bit = 8; bit >= 0; bit--) text += (mode & (1 << bit)) === 0 ? "-" : "xwr"[bit % 3];
  return text;
}

/** Go's `time.RFC3339` in the zone of this process: `2026-03-04T05:06:07Z` or `2026-03-04T06:06:07+01:00`. */
export function goTime(ns: bigint): string {
  let seconds = ns / 1_000_000_000n;
  if (seconds * 1_000_000_000n > ns) seconds -= 1n;
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return goTime(0n);
  const offset = -Math.trunc(date.getTimezoneOffset());
  if (offset === 0) return `${date.toISOString().slice(0, -5)}Z`;
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, -5);
  const minutes = Math.abs(offset);
  const zone = `${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
  return `${local}${offset < 0 ? "-" : "+"}${zone}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
