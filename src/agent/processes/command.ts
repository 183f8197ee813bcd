// What an ExecSpec means on this machine: program, arguments, environment and an open working directory.
import { accessSync, closeSync, constants, openSync, readlinkSync, statSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { isAbsolute, join } from "node:path";
import type { ExecSpec, WorkspacePath } from "../../core/workspace.ts";
import { SYSTEM_PATH } from "../../lib/command.ts";
import { errnoOf, faultFromErrno } from "../../lib/errno.ts";
import { Fault } from "../../lib/fault.ts";

/** A command that can be started. Disposing closes the directory. */
export interface Command extends Disposable {
  /** Absolute path of the program. */
  readonly file: string;
  readonly argv0: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** A path of the open directory that the child can change to, whatever bytes its name has. */
  readonly cwd: string;
}

/** Where commands run and what they inherit. */
export interface CommandBase {
  /** Absolute; relative working directories are below it and it is the default. */
  readonly workDir: string;
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Resolves a spec.
 * @throws Fault invalid_argument, not_found (no such directory or program), failed_precondition (not a directory),
 * permission_denied (not executable)
 */
export function resolveCommand(spec: ExecSpec, base: CommandBase): Command {
  const argv = typeof spec.command === "string" ? ["/bin/sh", "-c", spec.command] : [...spec.command];
  const [program, ...args] = argv;
  if (program === undefined || program === "" || spec.command === "") {
    throw new Fault("invalid_argument", "command is required");
  }
  const env = environment(spec, base.env);
  for (const text of [...argv, ...Object.entries(env).flat()]) refuseNul(text);
  const fd = openDirectory(spec.cwd, base.workDir);
  try {
    const directory = readlinkSync(`/proc/self/fd/${fd}`);
    const file = findProgram(program, env["PATH"], directory);
    return {
      file,
      argv0: program,
      args,
      env,
      // Not by way of self: among the child's own descriptors the number may already mean something else.
      cwd: `/proc/${process.pid}/fd/${fd}`,
      [Symbol.dispose]: () => {
        closeSync(fd);
      },
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Number of a signal name. @throws Fault invalid_argument */
export function checkSignal(name: string): NodeJS.Signals {
  if (!Object.hasOwn(osConstants.signals, name)) {
    throw new Fault("invalid_argument", `Cannot send ${JSON.stringify(name)}: no such signal`, {
      hint: "Use a name such as SIGINT, SIGTERM or SIGKILL",
    });
  }
  return name as NodeJS.Signals;
}

function environment(
  spec: ExecSpec,
  inherited: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const env: Record<string, string> = Object.assign(Object.create(null) as Record<string, string>, {
    ...(spec.pty === undefined || spec.cleanEnv === true ? {} : { TERM: "xterm-256color" }),
    ...(spec.cleanEnv === true ? {} : inherited),
    ...spec.env,
  });
  for (const name of spec.unsetEnv ?? []) delete env[name];
  return env;
}

function refuseNul(text: string): void {
  if (text.includes("\0")) {
    throw new Fault("invalid_argument", "Cannot run a command whose text or environment holds a NUL byte");
  }
}

const O_PATH = 0o10000000;

function openDirectory(cwd: WorkspacePath | undefined, workDir: string): number {
  const given = Buffer.from(cwd ?? "");
  const path = given[0] === 0x2f ? given : Buffer.concat([Buffer.from(`${workDir}/`), given]);
  const name = given.length === 0 ? workDir : given.toString("utf8");
  if (path.includes(0)) {
    throw new Fault("invalid_argument", "Cannot use a working directory with a NUL byte");
  }
  try {
    return openSync(path, O_PATH | constants.O_DIRECTORY);
  } catch (error) {
    throw faultFromErrno(
      error,
      `Cannot use ${name} as the working directory`,
      errnoOf(error) === "ENOENT" ? "Create the directory first, or choose another one" : undefined,
    );
  }
}

/** The program as the child's shell would find it: by PATH of the child, relative to its working directory. */
function findProgram(program: string, path: string | undefined, directory: string): string {
  const candidates = program.includes("/")
    ? [program]
    : (path ?? SYSTEM_PATH).split(":").map((entry) => join(entry === "" ? "." : entry, program));
  let denied: unknown;
  for (const candidate of candidates) {
    const file = isAbsolute(candidate) ? candidate : join(directory, candidate);
    try {
      if (!statSync(file).isFile()) {
        denied ??= new Fault("permission_denied", `Cannot run ${program}: not a regular file`);
        continue;
      }
      accessSync(file, constants.X_OK);
      return file;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "EACCES") denied ??= error;
      else if (errno !== "ENOENT" && errno !== "ENOTDIR") denied ??= error;
    }
  }
  if (denied !== undefined) {
    throw faultFromErrno(denied, `Cannot run ${program}`, "Make the file executable (chmod +x)");
  }
  throw new Fault("not_found", `Cannot run ${program}: no such program`, {
    hint: program.includes("/")
      ? "Check the path; a relative one starts at the working directory"
      : "Install it, or give its full path",
  });
}
