// Stat, mkdir, rename and remove.
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOf } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

export function fileTests(ground: Ground): void {
  test("stat tells everything about a file", async () => {
    const dir = await ground.fresh();
    await ground.sh(
      "printf 12345 > f; chown 1234:2345 f; chmod 4751 f; touch -d '2020-02-03 04:05:06.789 UTC' f",
      dir,
    );
    const entry = await ground.workspace.stat(`${dir}/f`);
    assert.deepEqual(
      {
        path: entry.path.toString(),
        isDir: entry.isDir,
        size: entry.size,
        mode: entry.mode,
        perm: entry.perm,
        uid: entry.uid,
        gid: entry.gid,
        mtimeNs: entry.mtimeNs,
      },
      {
        path: "f",
        isDir: false,
        size: 5,
        mode: "urwxr-x--x",
        perm: 0o4751,
        uid: 1234,
        gid: 2345,
        mtimeNs: 1_580_702_706_789_000_000n,
      },
    );
    assert.equal(Date.parse(entry.modTime), 1_580_702_706_000);
  });

  test("stat tells a directory, and a size beyond 4 GiB", async () => {
    const dir = await ground.fresh();
    const directory = await ground.workspace.stat(dir);
    assert.ok(directory.isDir);
    assert.match(directory.mode, /^d/);
    await ground.sh("truncate -s 5G big", dir);
    assert.equal((await ground.workspace.stat(`${dir}/big`)).size, 5 * 2 ** 30);
  });

  test("stat follows a link, or describes the link itself", async () => {
    const dir = await ground.fresh();
    await ground.sh("printf 123 > target; ln -s target link; ln -s none broken", dir);
    const followed = await ground.workspace.stat(`${dir}/link`);
    assert.deepEqual([followed.size, followed.mode[0], followed.linkTarget], [3, "-", undefined]);
    const itself = await ground.workspace.stat(`${dir}/link`, { noFollow: true });
    assert.deepEqual([itself.mode[0], itself.linkTarget?.toString()], ["L", "target"]);
    await faultOf(ground.workspace.stat(`${dir}/broken`), "not_found");
    assert.equal(
      (await ground.workspace.stat(`${dir}/broken`, { noFollow: true })).linkTarget?.toString(),
      "none",
    );
  });

  test("what is not there is not found, whoever asks", async () => {
    const dir = await ground.fresh();
    const none = `${dir}/none`;
    const w = ground.workspace;
    await faultOf(w.stat(none), "not_found");
    await faultOf(w.readText(none), "not_found");
    await faultOf(w.readRaw(none), "not_found");
    await faultOf(w.list(none), "not_found");
    await faultOf(w.list(none, { recursive: true }), "not_found");
    await faultOf(w.rename(none, `${dir}/other`), "not_found");
    await faultOf(w.readTree(none), "not_found");
  });

  test("an empty path and a path with a NUL are invalid", async () => {
    const w = ground.workspace;
    for (const path of ["", "a\0b", Buffer.from("a\0b")]) {
      await faultOf(w.stat(path), "invalid_argument");
      await faultOf(w.readRaw(path), "invalid_argument");
      await faultOf(w.readText(path), "invalid_argument");
      await faultOf(w.writeFile(path, Buffer.alloc(0)), "invalid_argument");
      await faultOf(w.mkdir(path), "invalid_argument");
      await faultOf(w.remove(path), "invalid_argument");
      await faultOf(w.rename(path, "x"), "invalid_argument");
      await faultOf(w.rename("x", path), "invalid_argument");
    }
  });

  test("a path below a file is a failed precondition", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "x");
    await faultOf(ground.workspace.stat(`${dir}/f/x`), "failed_precondition", "not_found");
    await faultOf(ground.workspace.mkdir(`${dir}/f/x`), "failed_precondition");
    await faultOf(ground.workspace.writeFile(`${dir}/f/x`, Buffer.alloc(1)), "failed_precondition");
    assert.equal(await ground.text(`${dir}/f`), "x");
  });

  test("a name that is too long is invalid", async () => {
    const dir = await ground.fresh();
    await faultOf(ground.workspace.mkdir(`${dir}/${"x".repeat(256)}`), "invalid_argument");
  });

  test("mkdir makes what is missing on the way and accepts what is there", async () => {
    const dir = await ground.fresh();
    await ground.workspace.mkdir(`${dir}/a/b/c`);
    await ground.workspace.mkdir(`${dir}/a/b/c`);
    assert.ok((await ground.workspace.stat(`${dir}/a/b/c`)).isDir);
    await ground.write(`${dir}/f`, "x");
    await faultOf(ground.workspace.mkdir(`${dir}/f`), "failed_precondition", "already_exists");
  });

  test("rename moves a file over another one and makes the way there", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/a`, "new");
    await ground.write(`${dir}/b`, "old");
    await ground.workspace.rename(`${dir}/a`, `${dir}/b`);
    await ground.workspace.rename(`${dir}/b`, `${dir}/deep/down/c`);
    assert.equal(await ground.text(`${dir}/deep/down/c`), "new");
    assert.ok(!(await ground.exists(`${dir}/a`)) && !(await ground.exists(`${dir}/b`)));
  });

  test("rename moves a directory, but not into itself and not over a full one", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir -p a/x b/y; : > b/y/f", dir);
    await ground.workspace.rename(`${dir}/a`, `${dir}/c`);
    assert.ok((await ground.workspace.stat(`${dir}/c/x`)).isDir);
    await faultOf(ground.workspace.rename(`${dir}/c`, `${dir}/c/x/c`), "invalid_argument");
    await faultOf(ground.workspace.rename(`${dir}/c`, `${dir}/b`), "failed_precondition");
    assert.ok(await ground.exists(`${dir}/b/y/f`));
  });

  test("remove takes a file, an empty directory, and nothing at all", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir empty; : > f", dir);
    for (const name of ["empty", "f", "f", "never"]) await ground.workspace.remove(`${dir}/${name}`);
    assert.equal((await ground.workspace.list(dir)).entries.length, 0);
  });

  test("remove leaves a full directory alone unless it is told to take it", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir -p full/sub; : > full/sub/f; chmod 500 full/sub", dir);
    await faultOf(ground.workspace.remove(`${dir}/full`), "failed_precondition");
    assert.ok(await ground.exists(`${dir}/full/sub/f`));
    await ground.workspace.remove(`${dir}/full`, { recursive: true });
    await ground.workspace.remove(`${dir}/full`, { recursive: true });
    assert.ok(!(await ground.exists(`${dir}/full`)));
  });

  test("remove takes links and never what they point to", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir -p keep tree; : > keep/f; ln -s ../keep tree/link; ln -s keep top", dir);
    await ground.workspace.remove(`${dir}/tree`, { recursive: true });
    await ground.workspace.remove(`${dir}/top`, { recursive: true });
    assert.ok(await ground.exists(`${dir}/keep/f`));
    assert.equal(await ground.sh("ls", dir), "keep\n");
  });

  test("relative paths are below the directory where commands run", async () => {
    const name = `contract-${process.pid}-${Math.random().toString(36).slice(2)}`;
    await ground.write(`./none/../${name}`, "here");
    try {
      assert.equal(await ground.sh(`cat ${name}`), "here");
      assert.equal(await ground.text(name), "here");
    } finally {
      await ground.workspace.remove(name);
    }
    assert.equal(await ground.sh("pwd"), await ground.sh("pwd", "."));
  });

  test("a hundred calls at the same time each get their own answer", async () => {
    const dir = await ground.fresh();
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        await ground.write(`${dir}/f${i}`, `content ${i}`);
      }),
    );
    const texts = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => await ground.text(`${dir}/f${i}`)),
    );
    assert.deepEqual(
      texts,
      Array.from({ length: 100 }, (_, i) => `content ${i}`),
    );
  });
}
