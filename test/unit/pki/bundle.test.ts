// Certificates in the shape memoh ships in: one minified CJS file, under Bun and under Node.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { build } from "esbuild";

const run = promisify(execFile);
const bun = join(
  dirname(createRequire(import.meta.url).resolve("@oven/bun-linux-x64/package.json")),
  "bin/bun",
);
const source = join(import.meta.dirname, "../../../src");

const PROGRAM = `
import { Pki } from "${source}/host/pki.ts";
import { silentLogger } from "${source}/lib/log.ts";
async function main() {
  const loadedEarly = "getMetadata" in Reflect;
  const pki = await Pki.open({ directory: process.argv[2], log: silentLogger() });
  const identity = await pki.mintAgentIdentity("0b0e5c1e-0000-4000-8000-000000000001", "boot");
  console.log(JSON.stringify({ loadedEarly, identity, ca: String(pki.clientTls("x").serverCa) }));
}
void main();
`;

test("the bundle mints certificates under Bun and Node, and loads the parser only then", async () => {
  const directory = await mkdtemp(join(tmpdir(), "memoh-pki-bundle-"));
  try {
    const entry = join(directory, "entry.ts");
    const outfile = join(directory, "bundle.cjs");
    await writeFile(entry, PROGRAM);
    await build({
      entryPoints: [entry],
      outfile,
      bundle: true,
      minify: true,
      platform: "node",
      format: "cjs",
      target: "node20",
      nodePaths: [join(source, "../node_modules")],
    });
    for (const runtime of [bun, process.execPath]) {
      const { stdout } = await run(runtime, [outfile, join(directory, "pki")], { timeout: 30_000 });
      const told = JSON.parse(stdout) as {
        loadedEarly: boolean;
        identity: { certificate: string };
        ca: string;
      };
      assert.equal(told.loadedEarly, false, "opening the module alone does not load reflect-metadata");
      const certificate = new X509Certificate(told.identity.certificate);
      assert.ok(certificate.verify(new X509Certificate(told.ca).publicKey));
      assert.ok(certificate.checkHost("0b0e5c1e-0000-4000-8000-000000000001.bot.memoh"));
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
