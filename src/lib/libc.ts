// The two C functions that no node: API offers, called directly where the runtime can (Bun); Node cannot.

/** Functions of libc by their C names and arguments. Failures return -1. */
export interface Libc {
  /** Fills two descriptors: read end, write end. */
  pipe2(fds: Int32Array, flags: number): number;
  ioctl(fd: number, request: number, argument: Uint16Array | Int32Array): number;
}

interface BunFfi {
  dlopen(
    library: string,
    symbols: Record<string, { args: readonly string[]; returns: string }>,
  ): { readonly symbols: Libc };
}

let loaded: Libc | undefined;

/** libc under Bun, undefined under Node. Loaded on first use: 1 ms and 0.1 MiB. */
export function libc(): Libc | undefined {
  if (loaded === undefined && process.versions["bun"] !== undefined) {
    const ffi: unknown = process.getBuiltinModule("bun:ffi");
    loaded = (ffi as BunFfi).dlopen("libc.so.6", {
      pipe2: { args: ["ptr", "i32"], returns: "i32" },
      ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
    }).symbols;
  }
  return loaded;
}
