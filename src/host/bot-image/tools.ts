// What every step of an image build is given: where to say what happens, and how programs are run.
import { type CommandOptions, runCommand } from "../../lib/command.ts";
import { Fault } from "../../lib/fault.ts";

export interface BuildTools {
  /** One short line of what is being done, for people. */
  readonly progress: (message: string) => void;
  /** Signal and environment of every program. */
  readonly command: Pick<CommandOptions, "signal" | "env">;
}

/** @throws Fault failed_precondition when the program, whose Debian package has the same name, is not installed */
export async function requireProgram(name: string, tools: BuildTools): Promise<void> {
  try {
    await runCommand([name, "--version"], { ...tools.command, timeoutMs: 20_000 });
  } catch (error) {
    if (!Fault.is(error, "not_found")) throw error;
    throw new Fault("failed_precondition", `Cannot build the image: ${name} is not installed`, {
      hint: `Install the package \`${name}\``,
      cause: error,
    });
  }
}
