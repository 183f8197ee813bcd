// What a verb reads from and writes to: stdout is data, stderr is everything else.

/** The terminal side of the program. */
export interface Io {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Aborts on the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
}

/** Writes data and waits while the reader is slow. */
export async function writeOut(stream: NodeJS.WriteStream, data: string | Uint8Array): Promise<void> {
  if (stream.write(data)) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once("drain", resolve);
  stream.once("close", resolve);
  await promise;
}

/** One JSON document, indented, as every `--json` prints it. */
export async function printJson(io: Io, value: unknown): Promise<void> {
  await writeOut(io.stdout, `${JSON.stringify(value, undefined, 2)}\n`);
}

/** Rows under a header, columns as wide as their widest cell. */
export async function printTable(
  io: Io,
  header: readonly string[],
  rows: readonly (readonly string[])[],
): Promise<void> {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd();
  await writeOut(io.stdout, `${[header, ...rows].map(line).join("\n")}\n`);
}

/** `name: value` pairs, aligned. */
export async function printFields(io: Io, fields: readonly (readonly [string, string])[]): Promise<void> {
  const width = Math.max(...fields.map(([name]) => name.length)) + 1;
  const text = fields.map(([name, value]) => `${`${name}:`.padEnd(width)} ${value}`.trimEnd()).join("\n");
  await writeOut(io.stdout, `${text}\n`);
}

/** `1.5 GiB` */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit] ?? ""}`;
}

/** `3m`, `2h`, `5d` since then. */
export function formatAge(since: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(since)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
