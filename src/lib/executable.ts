// Whether this program runs as the one executable, and where that file is.

interface BunGlobal {
  readonly main: string;
}

interface SeaModule {
  readonly isSea: () => boolean;
}

/** Path of the running memoh executable; undefined when the source or the bare bundle runs. */
export function runningExecutable(): string | undefined {
  const bun = (globalThis as { Bun?: BunGlobal }).Bun;
  if (bun !== undefined) return bun.main.startsWith("/$bunfs/") ? process.execPath : undefined;
  const sea = process.getBuiltinModule("node:sea") as SeaModule;
  return sea.isSea() ? process.execPath : undefined;
}
