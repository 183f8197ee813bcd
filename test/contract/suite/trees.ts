// Trees: everything about a tree arrives, the hash proves it, and a hostile tar stays inside.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeSummary } from "../../../src/core/workspace.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { faultOf, gather, pieces } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

/** One of everything a tree carries. */
const FIXTURE = `
mkdir -p tree/sub/deep tree/empty tree/sticky && cd tree &&
printf hello > file && : > nothing && printf '#!/bin/sh\\n' > sub/run && chmod 755 sub/run &&
printf secret > sub/secret && chmod 600 sub/secret && chown 1234:2345 sub/secret &&
chmod 1777 sticky && chmod 500 sub/deep && ln -s ../file sub/link && ln -s /nowhere sub/broken &&
ln file sub/hard && printf bytes > "$(printf 'caf\\351')" && head -c 3000000 /dev/urandom > sub/big &&
truncate -s 20M sparse && printf end >> sparse &&
touch -d '2021-03-04 05:06:07.891234 UTC' file sub/run empty && touch -h -d '2022-01-01 UTC' sub/link
`;

/** What a tree looks like to find: type, mode, owner, size of files, links, time to the microsecond, name. */
const LOOK = `find . -mindepth 1 \\( -type d -printf '%y %m %U:%G - %l %T@ %P\\n' -o -printf '%y %m %U:%G %s %l %T@ %P\\n' \\) | sed -E 's/(\\.[0-9]{6})[0-9]+ /\\1 /' | LC_ALL=C sort -k7; find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2`;

/** Reads a tree whole. */
async function readWhole(ground: Ground, path: string): Promise<{ tar: Buffer; summary: TreeSummary }> {
  const tree = await ground.workspace.readTree(path);
  return { tar: await gather(tree.data), summary: await tree.summary };
}

interface Entry {
  readonly name: string;
  /** `0` file, `1` hard link, `2` symbolic link, `5` directory. */
  readonly type: "0" | "1" | "2" | "5";
  readonly link?: string;
  readonly content?: string;
}

/** A plain ustar archive, written here so that it can say what no honest tool would. */
function tarOf(...entries: Entry[]): Buffer {
  const blocks = entries.flatMap(({ name, type, link = "", content = "" }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0, 100);
    header.write("0000755\0", 100);
    header.write("0000000\0", 108);
    header.write("0000000\0", 116);
    header.write(`${Buffer.byteLength(content).toString(8).padStart(11, "0")}\0`, 124);
    header.write("14000000000\0", 136);
    header.write("        ", 148);
    header.write(type, 156);
    header.write(link, 157, 100);
    header.write("ustar\x0000", 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    const body = Buffer.alloc(Math.ceil(Buffer.byteLength(content) / 512) * 512);
    body.write(content);
    return [header, body];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

export function treeTests(ground: Ground): void {
  test("a tree arrives with everything that is about it, and the hash is the same at both ends", async () => {
    const dir = await ground.fresh();
    await ground.sh(FIXTURE, dir);
    const source = await ground.workspace.readTree(`${dir}/tree`);
    const written = await ground.workspace.writeTree(`${dir}/copy`, source.data, {
      expected: async () => await source.summary,
    });
    const summary = await source.summary;
    assert.deepEqual(summary.skipped, []);
    assert.deepEqual(written.summary.sha256, summary.sha256);
    assert.deepEqual(written.conflicts, []);
    assert.equal(await ground.sh(LOOK, `${dir}/copy`), await ground.sh(LOOK, `${dir}/tree`));
    assert.equal(await ground.sh("stat -c %h file", `${dir}/copy`), "2\n");
    assert.ok(Number(await ground.sh("du -k sparse | cut -f1", `${dir}/copy`)) < 10_000, "holes stay holes");
    const again = await readWhole(ground, `${dir}/copy`);
    assert.deepEqual(again.summary.sha256, summary.sha256);
  });

  test("any change of a tree is another hash", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; printf abc > t/f; touch -d '2020-01-01 UTC' t t/f", dir);
    const hash = async () => (await readWhole(ground, `${dir}/t`)).summary.sha256.toString("hex");
    const seen = [await hash()];
    assert.equal(await hash(), seen[0], "the same tree has the same hash");
    for (const change of [
      "chmod 600 t/f",
      "touch -d '2020-01-02 UTC' t/f",
      "printf abd > t/f; touch -d '2020-01-02 UTC' t/f",
      "chown 1:1 t/f",
      "mv t/f t/g",
      "ln -s g t/l",
    ]) {
      await ground.sh(change, dir);
      seen.push(await hash());
    }
    assert.equal(new Set(seen).size, seen.length);
  });

  test("sockets, FIFOs and devices are left out and told", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; mkfifo t/pipe; : > t/f", dir);
    const { summary } = await readWhole(ground, `${dir}/t`);
    assert.deepEqual(
      summary.skipped.map(({ path, failed }) => [path.toString(), failed]),
      [["pipe", false]],
    );
  });

  test("an empty directory is a tree", async () => {
    const dir = await ground.fresh();
    await ground.workspace.mkdir(`${dir}/t`);
    const tree = await ground.workspace.readTree(`${dir}/t`);
    await ground.workspace.writeTree(`${dir}/copy`, tree.data, { expected: async () => await tree.summary });
    assert.equal((await ground.workspace.list(`${dir}/copy`)).entries.length, 0);
  });

  test("what exists is kept, replaced, moved beside or a failure, as the rule says", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir -p t/d; printf new > t/d/f; printf only > t/d/g", dir);
    const { tar } = await readWhole(ground, `${dir}/t`);
    for (const conflict of ["fail", "replace", "keep", "rename"] as const) {
      const target = `${dir}/${conflict}`;
      await ground.sh(`mkdir -p ${target}/d; printf old > ${target}/d/f; printf mine > ${target}/d/m`);
      const writing = ground.workspace.writeTree(target, pieces(tar), { conflict });
      if (conflict === "fail") {
        await faultOf(writing, "already_exists");
        assert.equal(await ground.text(`${target}/d/f`), "old");
        continue;
      }
      const { conflicts } = await writing;
      assert.equal(await ground.text(`${target}/d/m`), "mine");
      assert.equal(await ground.text(`${target}/d/g`), "only");
      assert.equal(await ground.text(`${target}/d/f`), conflict === "replace" ? "new" : "old");
      assert.equal(await ground.exists(`${target}/d/f.from-host`), conflict === "rename");
      assert.deepEqual(conflicts.map(String), conflict === "replace" ? [] : ["d/f"], conflict);
    }
  });

  test("a tree that is not what its sender said is data loss", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; printf abc > t/f", dir);
    const { tar, summary } = await readWhole(ground, `${dir}/t`);
    const wrong = { ...summary, sha256: Buffer.alloc(32) };
    const writing = ground.workspace.writeTree(`${dir}/copy`, pieces(tar), {
      expected: async () => await Promise.resolve(wrong),
    });
    await faultOf(writing, "data_loss");
  });

  test("a tar that is cut off, and bytes that are no tar, are errors and end", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; head -c 100000 /dev/zero > t/f", dir);
    const { tar } = await readWhole(ground, `${dir}/t`);
    const cut = ground.workspace.writeTree(`${dir}/cut`, pieces(tar.subarray(0, 50_000)));
    await faultOf(cut, "data_loss", "invalid_argument");
    assert.ok(!(await ground.exists(`${dir}/cut/f`)), "no half of a file");
    const noise = ground.workspace.writeTree(`${dir}/noise`, pieces(Buffer.alloc(2048, "noise")));
    await faultOf(noise, "invalid_argument", "data_loss");
  });

  test("a source that fails in the middle of a tree is what is thrown", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; head -c 1000000 /dev/zero > t/f", dir);
    const { tar } = await readWhole(ground, `${dir}/t`);
    async function* failing() {
      yield await Promise.resolve(tar.subarray(0, 600_000));
      throw new Fault("unavailable", "the sender is gone");
    }
    const fault = await faultOf(ground.workspace.writeTree(`${dir}/copy`, failing()), "unavailable");
    assert.equal(fault.message, "the sender is gone");
    assert.ok(!(await ground.exists(`${dir}/copy/f`)), "no half of a file");
  });

  const file = { type: "0", content: "evil" } as const;
  const HOSTILE: Readonly<Record<string, readonly Entry[]>> = {
    "a name that climbs": [{ ...file, name: "../evil" }],
    "a name that climbs in the middle": [
      { name: "a", type: "5" },
      { ...file, name: "a/../../evil" },
    ],
    "a directory that is a link to the outside": [
      { name: "a", type: "2", link: "../outside" },
      { ...file, name: "a/evil" },
    ],
    "a link that is replaced by what it points to": [
      { name: "a", type: "2", link: "../outside/evil" },
      { ...file, name: "a" },
    ],
    "a hard link to the outside": [
      { name: "a", type: "1", link: "../outside/victim" },
      { ...file, name: "a" },
    ],
  };
  for (const [what, entries] of Object.entries(HOSTILE)) {
    test(`a tar with ${what} changes nothing outside`, async () => {
      const dir = await ground.fresh();
      await ground.sh("mkdir outside; printf safe > outside/victim", dir);
      for (const conflict of ["fail", "replace", "keep", "rename"] as const) {
        try {
          await ground.workspace.writeTree(`${dir}/in`, pieces(tarOf(...entries)), { conflict });
        } catch (error) {
          assert.ok(Fault.is(error) && error.code !== "internal", String(error));
        }
        assert.equal(
          await ground.sh("ls -A . outside; cat outside/victim", dir),
          ".:\nin\noutside\n\noutside:\nvictim\nsafe",
        );
        await ground.workspace.remove(`${dir}/in`, { recursive: true });
        await ground.workspace.mkdir(`${dir}/in`);
      }
    });
  }

  test("a tree that is left early leaves nothing behind", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir t; truncate -s 200M t/f", dir);
    const tree = await ground.workspace.readTree(`${dir}/t`);
    for await (const _ of tree.data) break;
    await faultOf(tree.summary);
    await ground.workspace.health();
  });
}
