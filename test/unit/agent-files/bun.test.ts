import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileRig, raw } from "../../support/file-rig.ts";
import { treeLines } from "../../support/tree-rig.ts";

test("under Bun, which the product runs on, trees carry extended attributes, and names of any bytes", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src/d"), { recursive: true });
  await writeFile(raw(rig.at("src"), "f\xff"), "content");
  await writeFile(rig.at("src/g"), "old");
  await symlink("g", rig.at("src/l"));
  execFileSync("setfattr", ["-n", "user.odd %=name", "-v", "0x00ff3d0a", rig.at("src/g")]);
  execFileSync("setfattr", ["-n", "user.empty", rig.at("src/d")]);
  execFileSync("setfattr", ["-n", "trusted.memoh", "-v", "t", rig.at("src/d")]);
  // cap_net_raw+ep, as setcap writes it.
  const capability = "0x0100000200200000000000000000000000000000";
  execFileSync("setfattr", ["-n", "security.capability", "-v", capability, rig.at("src/g")]);
  const module = new URL("../../../src/agent/files/local-files.ts", import.meta.url).href;
  const script = `
    const { LocalFiles } = await import(${JSON.stringify(module)});
    const files = new LocalFiles({ workDir: ${JSON.stringify(rig.dir)} });
    const tree = await files.readTree("src");
    const { summary } = await files.writeTree("copy", tree.data, { expected: () => tree.summary });
    await files.writeFile("copy/g", Buffer.from("new"));
    const told = (await files.list("copy")).entries.map((entry) => entry.path.toString("latin1"));
    console.log(JSON.stringify({ skipped: summary.skipped, unsupported: summary.xattrsUnsupported, told }));
  `;
  const bun = createRequire(import.meta.url).resolve(
    `@oven/bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}/bin/bun`,
  );
  const child = spawnSync(bun, ["-e", script]);
  assert.equal(child.status, 0, child.stderr.toString());
  assert.deepEqual(JSON.parse(child.stdout.toString()), {
    skipped: [],
    unsupported: false,
    told: ["d", "f\xff", "g", "l"],
  });
  const attributes = (name: string) =>
    execFileSync("getfattr", ["-d", "-m", "-", "-e", "hex", "--absolute-names", rig.at(name)])
      .toString()
      .split("\n")
      .slice(1)
      .sort();
  assert.deepEqual(attributes("copy/d"), attributes("src/d"));
  assert.deepEqual(attributes("copy/g"), attributes("src/g"));
  assert.equal(attributes("copy/g").filter((line) => line !== "").length, 2);
  const others = (directory: string) =>
    treeLines(rig.at(directory)).filter((line) => !/b'(g|\.)'/.test(line));
  assert.deepEqual(others("copy"), others("src"));
});
