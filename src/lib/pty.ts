// Pseudo terminals: the kernel calls behind them by libc under Bun and by node-pty's addon under Node.
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoOf, faultFromErrno } from "./errno.ts";
import { Fault } from "./fault.ts";
import { libc } from "./libc.ts";

/** Columns and rows of a terminal. */
export interface PtySize {
  readonly cols: number;
  readonly rows: number;
}

/** Both ends of a new terminal. The master does not block. The caller closes both. */
export interface Pty {
  readonly master: number;
  readonly slave: number;
  /** `/dev/pts/N`: a session leader that opens it makes it its controlling terminal. */
  readonly path: string;
}

/** Opens a terminal of a size. @throws Fault */
export function openPty(size: PtySize): Pty {
  return libc() === undefined ? openByAddon(size) : openByLibc(size);
}

/** Changes the size; the foreground processes get SIGWINCH. */
export function resizePty(master: number, size: PtySize): void {
  const c = libc();
  if (c === undefined) addon().resize(master, size.cols, size.rows);
  else if (c.ioctl(master, TIOCSWINSZ, windowSize(size)) !== 0) throw failed("change the size of a terminal");
}

const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;

function openByLibc(size: PtySize): Pty {
  const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants;
  let master: number | undefined;
  try {
    master = openSync("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    const number = new Int32Array(1);
    if (
      libc()?.ioctl(master, TIOCGPTN, number) !== 0 ||
      libc()?.ioctl(master, TIOCSPTLCK, new Int32Array(1)) !== 0
    ) {
      throw failed("open a terminal");
    }
    resizePty(master, size);
    const path = `/dev/pts/${number[0]}`;
    return { master, slave: openSync(path, O_RDWR | O_NOCTTY), path };
  } catch (error) {
    if (master !== undefined) closeSync(master);
    throw ptyFault(error);
  }
}

/** Rows, columns and two unused numbers, as the kernel's struct winsize. */
function windowSize(size: PtySize): Uint16Array {
  return new Uint16Array([size.rows, size.cols, 0, 0]);
}

function ptyFault(error: unknown): Fault {
  if (errnoOf(error) !== "ENOENT") return faultFromErrno(error, "Cannot open a terminal");
  return new Fault("failed_precondition", "Cannot open a terminal: there is no /dev/ptmx or /dev/pts", {
    cause: error,
    hint: "Mount devpts on /dev/pts",
  });
}

function failed(what: string): Fault {
  return new Fault("internal", `Cannot ${what}: the kernel refused`);
}

// Node: the addon of node-pty, from node_modules or, in a single executable, from its asset `pty.node`.

interface Addon {
  open(cols: number, rows: number): { readonly master: number; readonly slave: number; readonly pty: string };
  resize(fd: number, cols: number, rows: number): void;
}

let loadedAddon: Addon | undefined;

function addon(): Addon {
  loadedAddon ??= loadAddon();
  return loadedAddon;
}

function loadAddon(): Addon {
  const sea = process.getBuiltinModule("node:sea");
  if (!sea.isSea()) return createRequire(import.meta.url)("@lydell/node-pty-linux-x64/pty.node") as Addon;
  const directory = mkdtempSync(join(tmpdir(), "memoh-pty-"));
  try {
    const file = join(directory, "pty.node");
    writeFileSync(file, Buffer.from(sea.getRawAsset("pty.node")), { mode: 0o700 });
    const module = { exports: {} };
    process.dlopen(module, file);
    return module.exports as Addon;
  } catch (error) {
    throw faultFromErrno(
      error,
      "Cannot load the terminal addon",
      `Make ${tmpdir()} writable and executable for the agent`,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function openByAddon(size: PtySize): Pty {
  try {
    const { master, slave, pty } = addon().open(size.cols, size.rows);
    leaking.add(master);
    closeSync(slave);
    return { master, slave: openSync(pty, constants.O_RDWR | constants.O_NOCTTY), path: pty };
  } catch (error) {
    throw ptyFault(error);
  }
}

/** Masters the addon opened, which do not close on exec: a child that held one would keep its terminal from hanging up. */
const leaking = new Set<number>();
let devNull: number | undefined;

/** The stdio of a child with every open terminal master hidden behind /dev/null. */
export function maskMasters(stdio: readonly number[]): (number | "ignore")[] {
  if (leaking.size === 0) return [...stdio];
  devNull ??= openSync("/dev/null", "r");
  const masked: (number | "ignore")[] = [...stdio];
  const last = Math.max(...leaking);
  for (let fd = masked.length; fd <= last; fd++) masked.push(leaking.has(fd) ? devNull : "ignore");
  return masked;
}

/** To be called when a master has been closed. */
export function masterClosed(master: number): void {
  leaking.delete(master);
}
