// Names of files are bytes: odd ones, and ones that are no UTF-8.
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOf, pieces } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

/** latin-1 "café" and bytes that no encoding likes. */
const RAW = Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x80, 0xfe, 0xff]);

export function nameTests(ground: Ground): void {
  test("a name that is not UTF-8 is kept by every call", async () => {
    const dir = await ground.fresh();
    const at = (name: Uint8Array) => Buffer.concat([Buffer.from(`${dir}/`), name]);
    const w = ground.workspace;
    await w.mkdir(at(RAW));
    const inside = Buffer.concat([RAW, Buffer.from("/"), RAW]);
    await w.writeFile(at(inside), Buffer.from("one"));
    assert.equal((await ground.read(at(inside))).toString(), "one");
    assert.equal(await w.writeRaw(at(inside), pieces("three")), 5);
    assert.match((await w.readText(at(inside))).content, /three/);
    assert.ok((await w.stat(at(inside))).path.equals(RAW));
    assert.ok((await w.list(dir)).entries[0]?.path.equals(RAW));
    const walk = await w.list(dir, { recursive: true });
    assert.ok(walk.entries[1]?.path.equals(inside));
    const moved = Buffer.concat([RAW, Buffer.from("/"), Buffer.from([0xff])]);
    await w.rename(at(inside), at(moved));
    await faultOf(w.stat(at(inside)), "not_found");
    assert.equal(
      await ground.sh("find . | od -An -tx1 | tr -d ' \\n' | grep -c 636166e980feff2fff", dir),
      "1\n",
    );
    await w.remove(at(RAW), { recursive: true });
    assert.equal((await w.list(dir)).entries.length, 0);
  });

  test("two names that look alike as text stay two files", async () => {
    const dir = await ground.fresh();
    const one = Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0x61, 0xff])]);
    const two = Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0x61, 0xfe])]);
    await ground.write(one, "one");
    await ground.write(two, "two");
    assert.equal((await ground.read(one)).toString(), "one");
    assert.equal((await ground.read(two)).toString(), "two");
    assert.equal((await ground.workspace.list(dir)).entries.length, 2);
    await ground.workspace.remove(one);
    assert.equal((await ground.read(two)).toString(), "two");
  });

  test("a link that points to bytes is told as bytes", async () => {
    const dir = await ground.fresh();
    await ground.sh("ln -s \"$(printf 'a\\377')\" link", dir);
    const { linkTarget } = await ground.workspace.stat(`${dir}/link`, { noFollow: true });
    assert.equal(linkTarget?.toString("hex"), "61ff");
  });

  test("odd names are names like any other", async () => {
    const dir = await ground.fresh();
    const odd = [
      "-rf",
      " ",
      "a b",
      "new\nline",
      "ünï 文件 🗂",
      "*",
      "$HOME",
      "back\\slash",
      "...",
      "x".repeat(255),
    ];
    for (const name of odd) await ground.write(`${dir}/${name}`, name);
    const listed = (await ground.workspace.list(dir)).entries.map(({ path }) => path.toString());
    assert.deepEqual(new Set(listed), new Set(odd));
    for (const name of odd) assert.equal(await ground.text(`${dir}/${name}`), name);
  });

  test("a command runs in a directory whose name is bytes", async () => {
    const dir = await ground.fresh();
    const cwd = Buffer.concat([Buffer.from(`${dir}/`), RAW]);
    await ground.workspace.mkdir(cwd);
    const { stdout } = await ground.run({ command: "pwd | od -An -tx1 | tr -d ' \\n'", cwd });
    assert.match(stdout.toString(), /636166e980feff0a$/);
  });
}
