// `memoh agent` runs none of the modules that only the host or the CLI needs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Plugin } from "esbuild";
import { bundle } from "../../../build/bundle.ts";
import { NODE, ROOT } from "../../../build/project.ts";

/** Makes every module say that its body ran. */
const tellModules: Plugin = {
  name: "tell-modules",
  setup(build) {
    build.onLoad({ filter: /\.(ts|[cm]?js)$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const strict = /^\s*(["'])use strict\1;?/.exec(source)?.[0] ?? "";
      const name = JSON.stringify(path.replace(`${ROOT}/`, ""));
      const tell = `(globalThis.__ran ??= new Set()).add(${name});`;
      return {
        contents: `${strict};${tell}${source.slice(strict.length).replace(/^#!.*/, "")}`,
        loader: path.endsWith(".ts") ? "ts" : "js",
      };
    });
  },
};

const HOST_ONLY =
  /^(src\/(host|store|http|containerd|cni|oci|remote|cli\/(?!version))|node_modules\/(yargs|postgres|hono|@hono|zod|@peculiar|reflect-metadata|jose|ws|@clack|smol-toml|@fastify)\/)/;

test("the agent serves without having run a module of the host or the CLI", {
  timeout: 60_000,
}, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "memoh-loads-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const outfile = join(folder, "memoh.cjs");
  await bundle({ outfile, plugins: [tellModules] });
  const socket = join(folder, "agent.sock");
  const report = join(folder, "ran.json");
  const told = `process.on("SIGUSR2",()=>require("node:fs").writeFileSync(${JSON.stringify(report)},JSON.stringify([...globalThis.__ran])));`;
  const preload = join(folder, "preload.cjs");
  await writeFile(preload, told);

  const agent = spawn(
    NODE,
    [
      "--require",
      preload,
      outfile,
      "agent",
      "--insecure",
      "--listen",
      `unix:${socket}`,
      "--work-dir",
      folder,
    ],
    { stdio: ["ignore", "inherit", "inherit"], env: {} },
  );
  t.after(async () => {
    agent.kill("SIGKILL");
    if (agent.exitCode === null && agent.signalCode === null) await once(agent, "exit");
  });
  await listens(socket, () => agent.exitCode);
  agent.kill("SIGUSR2");
  const ran = await written(report);
  assert.ok(
    ran.some((path) => path.startsWith("src/agent/")),
    "the agent's own modules were not seen: the test tells nothing",
  );
  assert.deepEqual(
    ran.filter((path) => HOST_ONLY.test(path)),
    [],
  );
});

async function listens(socket: string, exitCode: () => number | null): Promise<void> {
  for (;;) {
    assert.equal(exitCode(), null, "the agent ended");
    const client = connect(socket);
    const open = await Promise.race([
      once(client, "connect").then(() => true),
      once(client, "error").then(() => false),
    ]).catch(() => false);
    client.destroy();
    if (open) return;
    await sleep(20);
  }
}

async function written(path: string): Promise<string[]> {
  for (;;) {
    const text = await readFile(path, "utf8").catch(() => "");
    if (text.endsWith("]")) return JSON.parse(text) as string[];
    await sleep(20);
  }
}
