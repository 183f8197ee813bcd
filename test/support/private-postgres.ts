// Data directories for private Postgres clusters of tests, and hosts beside this process that can be killed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { mustRun } from "../../src/lib/command.ts";
import { silentLogger } from "../../src/lib/log.ts";
import {
  findPrivatePostgres,
  openPrivatePostgres,
  type PrivatePostgres,
  type PrivatePostgresOptions,
} from "../../src/store/private-postgres.ts";
import { execute } from "./postgres.ts";

/** As quick as a crash of the process alone allows: what is committed has left it. */
const CRASH_SAFE = { fsync: "off", full_page_writes: "off" };

export interface Rig extends AsyncDisposable {
  readonly dataDir: string;
  readonly open: (options?: Partial<PrivatePostgresOptions>) => Promise<PrivatePostgres>;
}

let made: Promise<string> | undefined;

/** A stopped cluster to copy, because making one costs more than all else here. */
async function makeCluster(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "memoh-pg-"));
  await (await openPrivatePostgres({ dataDir: directory, log: silentLogger(), settings: CRASH_SAFE })).stop();
  return directory;
}

after(async () => {
  if (made !== undefined) await rm(await made, { recursive: true });
});

/** A data directory that anyone may pass, and what runs in it until the end of the test. */
export async function rig(options: { readonly mode?: number; readonly made?: boolean } = {}): Promise<Rig> {
  const top = await mkdtemp(join(tmpdir(), "memoh-pg-"));
  await chmod(top, options.mode ?? 0o711);
  const dataDir = join(top, "var", "data");
  if (options.made === true) {
    await mkdir(join(top, "var"));
    await mustRun(["cp", "-a", await (made ??= makeCluster()), dataDir]);
  }
  return {
    dataDir,
    open: async (options) =>
      await openPrivatePostgres({ dataDir, log: silentLogger(), settings: CRASH_SAFE, ...options }),
    [Symbol.asyncDispose]: async () => {
      await (await findPrivatePostgres({ dataDir }))?.stop();
      // A killed initdb may still write for a moment.
      await rm(top, { recursive: true, maxRetries: 10, retryDelay: 200 });
    },
  };
}

/** Names in a directory that may be gone or not there yet. */
export async function filesOf(directory: string): Promise<string[]> {
  return await readdir(directory).catch((): string[] => []);
}

export async function ask(postgres: PrivatePostgres, expression: string): Promise<unknown> {
  const rows = await execute<{ answer: unknown }>(postgres.target, `select ${expression} as answer`);
  return rows[0]?.answer;
}

/** Another host as a process of its own; it says the postmaster's pid and then waits to be killed. */
export function spawnHost(dataDir: string) {
  const program = `
    import { openPrivatePostgres } from ${JSON.stringify(join(import.meta.dirname, "../../src/store/private-postgres.ts"))};
    import { silentLogger } from ${JSON.stringify(join(import.meta.dirname, "../../src/lib/log.ts"))};
    const [dataDir, settings] = ${JSON.stringify([dataDir, CRASH_SAFE])};
    const postgres = await openPrivatePostgres({ dataDir, settings, log: silentLogger() });
    console.log(postgres.pid);
    setInterval(() => undefined, 1000);`;
  return spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

export async function firstLine(child: ReturnType<typeof spawnHost>): Promise<number> {
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return Number(String(line));
}

export async function crash(child: ReturnType<typeof spawnHost>): Promise<void> {
  child.kill("SIGKILL");
  await once(child, "exit");
}
