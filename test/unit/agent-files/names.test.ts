import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { link, lstat, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { faultOf, fileRig } from "../../support/file-rig.ts";

test("stat follows links, gives the base name only, and describes a link itself when asked", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("d"));
  await writeFile(rig.at("d/f"), "123");
  await symlink("d/f", rig.at("l"));
  const entry = async (path: string, noFollow = false) => (await rig.client.stat({ path, noFollow })).entry;
  const followed = await entry("l");
  assert.deepEqual([followed?.path, followed?.size, followed?.mode], ["l", 3n, "-rw-r--r--"]);
  const itself = await entry("l", true);
  assert.deepEqual([itself?.mode, Buffer.from(itself?.linkTarget ?? "").toString()], ["Lrwxrwxrwx", "d/f"]);
  assert.deepEqual([(await entry("d/f"))?.path, (await entry("/"))?.path], ["f", "/"]);
  assert.equal((await entry("d"))?.isDir, true);
});

test("stat of what is not there is not_found, of an impossible path failed_precondition", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), "");
  await symlink("gone", rig.at("dangling"));
  const stat = async (path: string) => await rig.client.stat({ path });
  await assert.rejects(stat("no"), faultOf("not_found", /^not found$/));
  await assert.rejects(stat("dangling"), faultOf("not_found", /^not found$/));
  await assert.rejects(stat("f/x"), faultOf("failed_precondition", "stat: "));
  await assert.rejects(stat(""), faultOf("invalid_argument", /^path is required$/));
});

test("mkdir makes parents, accepts what exists, and refuses where a file is", async () => {
  await using rig = await fileRig();
  await rig.client.mkdir({ path: "a/b/c" });
  await rig.client.mkdir({ path: "a/b/c" });
  assert.equal((await stat(rig.at("a/b"))).mode & 0o777, 0o755);
  await symlink("a", rig.at("la"));
  await rig.client.mkdir({ path: "la/d" });
  assert.ok((await stat(rig.at("a/d"))).isDirectory());
  await writeFile(rig.at("f"), "");
  await symlink("gone", rig.at("dangling"));
  for (const path of ["f", "f/x", "f/x/y", "dangling", "dangling/x"]) {
    await assert.rejects(rig.client.mkdir({ path }), faultOf("failed_precondition", "mkdir: "), path);
  }
  await assert.rejects(rig.client.mkdir({ path: "" }), faultOf("invalid_argument", /^path is required$/));
});

test("rename makes the target's parent and overwrites files; a missing source changes nothing", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), "f");
  await rig.client.rename({ oldPath: "f", newPath: "x/y/g" });
  await writeFile(rig.at("h"), "h");
  await rig.client.rename({ oldPath: "h", newPath: "x/y/g" });
  assert.equal(await readFile(rig.at("x/y/g"), "utf8"), "h");
  const rename = async (oldPath: string, newPath: string) => await rig.client.rename({ oldPath, newPath });
  await assert.rejects(rename("no", "new/dir/f"), faultOf("not_found", "rename: "));
  assert.deepEqual(await readdir(rig.dir), ["x"]);
  const required = faultOf("invalid_argument", /^old_path and new_path are required$/);
  await assert.rejects(rename("", "a"), required);
  await assert.rejects(rename("a", ""), required);
  await assert.rejects(rename("x", "x/y/z"), faultOf("invalid_argument", "rename: "));
  await assert.rejects(rename("x/y/g", "x/y"), faultOf("failed_precondition", "rename: "));
  await assert.rejects(rename("x/y/g", "x/y/g/z"), faultOf("failed_precondition", "mkdir parent: "));
  await assert.rejects(rename("x/y/g", "/dev/shm/memoh-no"), faultOf("failed_precondition", "rename: "));
});

test("delete takes one file or an empty directory, a tree when recursive, and a missing target is success", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("d/e"), { recursive: true });
  await writeFile(rig.at("d/f"), "");
  await symlink("d", rig.at("l"));
  await symlink("/etc", rig.at("d/etc"));
  const remove = async (path: string, recursive = false) => await rig.client.deleteFile({ path, recursive });
  await assert.rejects(remove("d"), faultOf("failed_precondition", "delete: "));
  await remove("d/e");
  await remove("l", true);
  assert.deepEqual((await readdir(rig.at("d"))).sort(), ["etc", "f"]);
  await remove("d", true);
  await remove("d", true);
  await remove("never");
  assert.deepEqual(await readdir(rig.dir), []);
  assert.ok((await stat("/etc")).isDirectory());
  await assert.rejects(remove(""), faultOf("invalid_argument", /^path is required$/));
  for (const path of ["/", "//", "/..", "../".repeat(20)]) {
    await assert.rejects(remove(path, true), faultOf("failed_precondition", "root"));
  }
  await writeFile(rig.at("f"), "");
  await assert.rejects(remove("f/x"), faultOf("failed_precondition", "delete: "));
});

test("a recursive delete removes all it can and names what stopped it", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("d/mounted"), { recursive: true });
  await mkdir(rig.at("d/z/zz"), { recursive: true });
  await writeFile(rig.at("d/z/zz/f"), "");
  execFileSync("mount", ["-t", "tmpfs", "tmpfs", rig.at("d/mounted")]);
  try {
    const attempt = rig.client.deleteFile({ path: "d", recursive: true });
    await assert.rejects(attempt, faultOf("failed_precondition", "device or resource busy"));
    assert.deepEqual(await readdir(rig.at("d")), ["mounted"]);
  } finally {
    execFileSync("umount", [rig.at("d/mounted")]);
  }
  await rig.client.deleteFile({ path: "d", recursive: true });
  await assert.rejects(lstat(rig.at("d")), { code: "ENOENT" });
});

test("a recursive delete ends although something keeps writing into the tree", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("d"));
  for (let i = 0; i < 300; i++) await writeFile(rig.at(`d/${i}`), "");
  const [, raced] = await Promise.allSettled([
    rig.client.deleteFile({ path: "d", recursive: true }),
    writeFile(rig.at("d/late"), ""),
  ]);
  // Whether it came in time or not, one more round is enough now.
  assert.ok(raced);
  await rig.client.deleteFile({ path: "d", recursive: true });
  assert.deepEqual(await readdir(rig.dir), []);
});

test("a rename or delete of one of two names leaves the other", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("one"), "1");
  await link(rig.at("one"), rig.at("two"));
  await rig.client.deleteFile({ path: "one" });
  assert.equal(await readFile(rig.at("two"), "utf8"), "1");
});
