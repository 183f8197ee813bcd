import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { sweepTemps } from "../../../src/agent/files/sweep-temps.ts";
import { seedTemplates } from "../../../src/agent/seed.ts";
import { createLogger } from "../../../src/lib/log.ts";
import { type FileRig, fileRig } from "../../support/file-rig.ts";

async function seed(rig: FileRig) {
  const lines: string[] = [];
  const log = createLogger({ level: "warn", format: "json", write: (line) => lines.push(line) });
  const templates = rig.at("../templates");
  const written = await seedTemplates({ templates, workDir: rig.dir, files: rig.files, log });
  return { written, warnings: lines.length };
}

async function withTemplates(): Promise<FileRig> {
  const rig = await fileRig();
  await mkdir(rig.at("../templates/directory"), { recursive: true });
  await writeFile(rig.at("../templates/SOUL.md"), "soul", { mode: 0o600 });
  await writeFile(rig.at("../templates/TOOLS.md"), "tools");
  return rig;
}

test("templates are copied once: a deleted one stays deleted, a changed one stays changed", async () => {
  await using rig = await withTemplates();
  assert.deepEqual(await seed(rig), { written: ["SOUL.md", "TOOLS.md"], warnings: 0 });
  assert.equal(await readFile(rig.at("SOUL.md"), "utf8"), "soul");
  assert.equal((await stat(rig.at("SOUL.md"))).mode & 0o777, 0o644);
  await rm(rig.at("SOUL.md"));
  await writeFile(rig.at("TOOLS.md"), "mine");
  assert.deepEqual(await seed(rig), { written: [], warnings: 0 });
  assert.deepEqual((await readdir(rig.dir)).sort(), [".memoh-seeded", "TOOLS.md"]);
  assert.equal(await readFile(rig.at("TOOLS.md"), "utf8"), "mine");
});

test("nothing that exists is overwritten, not even a dangling link", async () => {
  await using rig = await withTemplates();
  await writeFile(rig.at("SOUL.md"), "mine");
  await symlink("gone", rig.at("TOOLS.md"));
  assert.deepEqual(await seed(rig), { written: [], warnings: 0 });
  assert.equal(await readFile(rig.at("SOUL.md"), "utf8"), "mine");
  await rm(rig.at("SOUL.md"));
  await seed(rig);
  assert.deepEqual((await readdir(rig.dir)).sort(), [".memoh-seeded", "TOOLS.md"]);
});

test("a template that comes with a later version is given too", async () => {
  await using rig = await withTemplates();
  await seed(rig);
  await rm(rig.at("SOUL.md"));
  await writeFile(rig.at("../templates/NEW.md"), "new");
  assert.deepEqual((await seed(rig)).written, ["NEW.md"]);
  assert.deepEqual((await seed(rig)).written, []);
});

test("no template directory is nothing to do; failures are warned and tried again", async () => {
  await using rig = await fileRig();
  assert.deepEqual(await seed(rig), { written: [], warnings: 0 });
  assert.deepEqual(await readdir(rig.dir), []);
  await mkdir(rig.at("../templates"));
  await writeFile(rig.at("../templates/A.md"), "a");
  execFileSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", rig.dir]);
  try {
    const { written, warnings } = await seed(rig);
    assert.deepEqual([written, warnings], [[], 1]);
  } finally {
    execFileSync("umount", [rig.dir]);
  }
  assert.deepEqual(await seed(rig), { written: ["A.md"], warnings: 0 });
  await rm(rig.at("../templates"), { recursive: true });
  await writeFile(rig.at("../templates"), "not a directory");
  assert.deepEqual(await seed(rig), { written: [], warnings: 1 });
});

test("a sweep removes what a crash left, and only that", async () => {
  await using rig = await fileRig();
  const uuid = "01234567-89ab-cdef-0123-456789abcdef";
  await mkdir(rig.at("a/b"), { recursive: true });
  await mkdir(rig.at(`.memoh-tmp-${uuid.replace("0", "9")}`));
  await mkdir(rig.at("outside-link-target"));
  for (const name of [
    `.memoh-tmp-${uuid}`,
    `a/b/.memoh-tmp-${uuid}`,
    `.memoh-tmp-${uuid}x`,
    ".memoh-tmp-notes",
    "file",
  ]) {
    await writeFile(rig.at(name), "");
  }
  await symlink("file", rig.at(`a/.memoh-tmp-${uuid}`));
  await writeFile(rig.at(`../.memoh-tmp-${uuid}`), "");
  await symlink("..", rig.at("up"));
  // What is younger than the process is in use.
  assert.equal(await sweepTemps(rig.dir, { before: Date.now() - 60_000 }), 0);
  const before = Date.now() + 1000;
  assert.equal(await sweepTemps(rig.dir, { before }), 2);
  assert.equal(await sweepTemps(rig.dir, { before }), 0);
  assert.equal((await stat(rig.at(`../.memoh-tmp-${uuid}`))).size, 0);
  assert.equal(await sweepTemps(rig.at("missing")), 0);
  await chmod(rig.at("a"), 0o755);
  assert.deepEqual((await readdir(rig.at("a"))).sort(), [`.memoh-tmp-${uuid}`, "b"]);
});
