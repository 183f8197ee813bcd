import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { truncate, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileRig } from "../../support/file-rig.ts";

const SIZE = 300 << 20;

/** Runs work on LocalFiles in a process of its own. @returns its peak memory in bytes */
function peakOf(dir: string, work: string): number {
  const module = new URL("../../../src/agent/files/local-files.ts", import.meta.url).href;
  const script = `
    const { LocalFiles } = await import(${JSON.stringify(module)});
    const { readFileSync } = await import("node:fs");
    const files = new LocalFiles({ workDir: ${JSON.stringify(dir)} });
    const SIZE = ${SIZE};
    ${work}
    process.stdout.write(/VmHWM:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  `;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script]);
  assert.equal(child.status, 0, child.stderr.toString());
  return Number(child.stdout.toString()) * 1024;
}

test("300 MiB are read as bytes, lines and a tree, and written as bytes and a tree, in less than 200 MiB", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("big"), "line\n");
  await truncate(rig.at("big"), SIZE);
  const peak = peakOf(
    rig.dir,
    `
    let bytes = 0;
    for await (const chunk of await files.readRaw("big")) bytes += chunk.length;
    if (bytes !== SIZE) throw new Error("read " + bytes);
    async function* source() {
      for (let sent = 0; sent < SIZE; sent += 256 << 10) yield Buffer.alloc(256 << 10, "fifteen letters\\n");
    }
    if ((await files.writeRaw("lines", source())) !== SIZE) throw new Error("written");
    const page = await files.readText("lines");
    if (page.totalLines !== SIZE / 16) throw new Error("lines " + page.totalLines);
    const tree = await files.readTree("big");
    const { summary } = await files.writeTree("copy", tree.data, { expected: () => tree.summary });
    if (summary.bytes !== SIZE) throw new Error("tree " + summary.bytes);
    `,
  );
  assert.ok(peak < 200 << 20, `peak ${peak >> 20} MiB`);
});
