// Extended attributes of open files: libc through Bun's FFI, elsewhere the programs getfattr and setfattr.
import { runCommand } from "./command.ts";
import { Fault } from "./fault.ts";

/** Extended attributes by name. Names have one character per byte (latin1). */
export type XattrMap = ReadonlyMap<string, Buffer>;

/** A way to reach extended attributes on this runtime. Everything goes by descriptor, so no name is ever misread. */
export interface Xattrs {
  /** Costs microseconds; otherwise each call starts a program. */
  readonly cheap: boolean;
  /** All attributes of an open file or directory; empty where the file system has none. */
  read(fd: number): Promise<XattrMap>;
  /** @throws Fault permission_denied or failed_precondition when the attribute cannot be set */
  write(fd: number, name: string, value: Uint8Array): Promise<void>;
}

let found: Promise<Xattrs | undefined> | undefined;

/** The way this machine offers, looked for once; undefined where there is none. */
export async function findXattrs(): Promise<Xattrs | undefined> {
  found ??= Promise.resolve(libcXattrs()).then(async (libc) => libc ?? (await programXattrs()));
  return await found;
}

const NONE: XattrMap = new Map();

interface BunFfi {
  dlopen(
    library: string,
    symbols: Readonly<Record<string, { args: readonly string[]; returns: string }>>,
  ): { symbols: Readonly<Record<string, (...args: unknown[]) => unknown>> };
}

/** libc's calls, on Bun. Sizes are asked first; an attribute that changes in between is read again. */
function libcXattrs(): Xattrs | undefined {
  const ffi = process.getBuiltinModule("bun:ffi") as BunFfi | undefined;
  if (ffi === undefined) return undefined;
  let symbols: ReturnType<BunFfi["dlopen"]>["symbols"];
  try {
    ({ symbols } = ffi.dlopen("libc.so.6", {
      flistxattr: { args: ["i32", "ptr", "u64"], returns: "i64_fast" },
      fgetxattr: { args: ["i32", "ptr", "ptr", "u64"], returns: "i64_fast" },
      fsetxattr: { args: ["i32", "ptr", "ptr", "u64", "i32"], returns: "i32" },
    }));
  } catch {
    // Not glibc: then there is no such way.
    return undefined;
  }
  const call = (name: string, ...args: unknown[]): number => Number(symbols[name]?.(...args) ?? -1);
  const sized = (size: () => number, fill: (buffer: Buffer) => number): Buffer | undefined => {
    for (let attempt = 0; attempt < 8; attempt++) {
      const want = size();
      if (want < 0) return undefined;
      if (want === 0) return Buffer.alloc(0);
      const buffer = Buffer.alloc(want);
      const got = fill(buffer);
      if (got >= 0) return buffer.subarray(0, got);
    }
    return undefined;
  };
  return {
    cheap: true,
    read: (fd) => {
      const list = sized(
        () => call("flistxattr", fd, null, 0),
        (buffer) => call("flistxattr", fd, buffer, buffer.length),
      );
      if (list === undefined || list.length === 0) return Promise.resolve(NONE);
      const map = new Map<string, Buffer>();
      for (const name of list.toString("latin1").split("\0")) {
        if (name === "") continue;
        const key = Buffer.from(`${name}\0`, "latin1");
        const value = sized(
          () => call("fgetxattr", fd, key, null, 0),
          (buffer) => call("fgetxattr", fd, key, buffer, buffer.length),
        );
        if (value !== undefined) map.set(name, value);
      }
      return Promise.resolve(map);
    },
    write: (fd, name, value) => {
      const bytes = value.length === 0 ? null : value;
      const code = call("fsetxattr", fd, Buffer.from(`${name}\0`, "latin1"), bytes, value.length, 0);
      return code === 0 ? Promise.resolve() : Promise.reject(refused(name));
    },
  };
}

/** The programs of the `attr` package. They are given /proc/PID/fd/N, because their arguments cannot be any bytes. */
async function programXattrs(): Promise<Xattrs | undefined> {
  for (const program of ["getfattr", "setfattr"]) {
    try {
      await runCommand([program, "--version"]);
    } catch (error) {
      if (Fault.is(error, "not_found")) return undefined;
      throw error;
    }
  }
  const at = (fd: number) => `/proc/${process.pid}/fd/${fd}`;
  return {
    cheap: false,
    read: async (fd) => {
      const { code, stdout } = await runCommand(["getfattr", "-d", "-m", "-", "-e", "base64", at(fd)]);
      return code === 0 ? parseDump(stdout) : NONE;
    },
    write: async (fd, name, value) => {
      const encoded = `0s${Buffer.from(value).toString("base64")}`;
      const { code } = await runCommand(["setfattr", "-n", name, "-v", encoded, at(fd)]);
      if (code !== 0) throw refused(name);
    },
  };
}

/** Lines of `name=0sBASE64`, names with octal escapes, under a comment that names the file. */
function parseDump(text: string): XattrMap {
  const map = new Map<string, Buffer>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const equals = line.indexOf("=");
    const name = (equals === -1 ? line : line.slice(0, equals)).replaceAll(
      /\\([0-7]{3})/g,
      (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)),
    );
    map.set(name, Buffer.from(equals === -1 ? "" : line.slice(equals + 3), "base64"));
  }
  return map;
}

function refused(name: string): Fault {
  return new Fault("failed_precondition", `Cannot set the extended attribute ${name}: refused here`);
}
