// Reads: raw bytes in ranges, and pages of numbered text.
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOf, gather } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

export function readTests(ground: Ground): void {
  test("a range gives those bytes and no others", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "0123456789");
    const part = async (range: { offset?: number; length?: number }) =>
      (await gather(await ground.workspace.readRaw(`${dir}/f`, range))).toString();
    assert.equal(await part({ offset: 3 }), "3456789");
    assert.equal(await part({ offset: 3, length: 4 }), "3456");
    assert.equal(await part({ length: 2 }), "01");
    assert.equal(await part({ offset: 8, length: 100 }), "89");
    assert.equal(await part({ offset: 10 }), "");
    assert.equal(await part({ offset: 2 ** 40 }), "");
    assert.equal(await part({ length: 0 }), "0123456789");
  });

  test("a range beyond 4 GiB is read where it is", async () => {
    const dir = await ground.fresh();
    await ground.sh("truncate -s 5G f; printf END >> f", dir);
    const tail = await ground.workspace.readRaw(`${dir}/f`, { offset: 5 * 2 ** 30 - 2 });
    assert.equal((await gather(tail)).toString("latin1"), "\0\0END");
  });

  test("a directory, a FIFO and a device give an error at once and hang nobody", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir d; mkfifo p; ln -s p link", dir);
    for (const path of [`${dir}/d`, `${dir}/p`, `${dir}/link`, "/dev/zero"]) {
      await faultOf(ground.workspace.readRaw(path), "failed_precondition");
      await faultOf(ground.workspace.readText(path), "failed_precondition");
    }
  });

  test("files of the kernel that claim to be empty are read to their end", async () => {
    assert.match(await ground.text("/proc/self/status"), /^Name:/);
    assert.match((await ground.workspace.readText("/proc/self/status")).content, /Name:/);
  });

  test("a reader that leaves early leaves nothing running", async () => {
    const dir = await ground.fresh();
    await ground.sh("truncate -s 1G f", dir);
    for (let i = 0; i < 20; i++) {
      for await (const chunk of await ground.workspace.readRaw(`${dir}/f`)) {
        assert.ok(chunk.length > 0);
        break;
      }
    }
    await ground.workspace.health();
  });

  test("a reader sees the file it opened, whatever takes its name", async () => {
    const dir = await ground.fresh();
    await ground.workspace.writeFile(`${dir}/f`, Buffer.alloc(5 << 20, "a"));
    let size = 0;
    for await (const chunk of await ground.workspace.readRaw(`${dir}/f`)) {
      if (size === 0) await ground.write(`${dir}/f`, "new");
      assert.ok(Buffer.from(chunk).every((byte) => byte === 97));
      size += chunk.length;
    }
    assert.equal(size, 5 << 20);
  });

  test("text comes as numbered lines with the count of the whole file", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "one\r\ntwo\n\nfour");
    const page = await ground.workspace.readText(`${dir}/f`);
    assert.deepEqual(page, {
      content: "     1\tone\n     2\ttwo\n     3\t\n     4\tfour\n",
      totalLines: 4,
      binary: false,
      truncated: false,
      nextLine: 0,
      lossy: false,
    });
  });

  test("pages follow each other without a gap", async () => {
    const dir = await ground.fresh();
    await ground.sh("seq 1 1000 > f", dir);
    let text = "";
    let pages = 0;
    for (let next = 1; next > 0; pages++) {
      const page = await ground.workspace.readText(`${dir}/f`, { lineOffset: next });
      assert.equal(page.totalLines, 1000);
      assert.ok(Buffer.byteLength(page.content) <= 5120);
      text += page.content.replaceAll(/^ *\d+\t/gm, "");
      next = page.nextLine;
    }
    assert.equal(text, `${Array.from({ length: 1000 }, (_, i) => i + 1).join("\n")}\n`);
    assert.equal(pages, 5);
    const two = await ground.workspace.readText(`${dir}/f`, { lineOffset: 999, lines: 1 });
    assert.deepEqual([two.content, two.truncated, two.nextLine], ["   999\t999\n", true, 1000]);
    const past = await ground.workspace.readText(`${dir}/f`, { lineOffset: 2000 });
    assert.deepEqual([past.content, past.totalLines, past.nextLine], ["", 1000, 0]);
  });

  test("text that is not UTF-8, long lines and binary files are flagged, not failed", async () => {
    const dir = await ground.fresh();
    await ground.sh(
      `printf 'a\\377b\\n' > lossy; head -c 3000000 /dev/zero | tr '\\0' x > long; printf 'a\\0b' > binary`,
      dir,
    );
    const lossy = await ground.workspace.readText(`${dir}/lossy`);
    assert.deepEqual([lossy.content, lossy.lossy], ["     1\ta\ufffdb\n", true]);
    const long = await ground.workspace.readText(`${dir}/long`);
    assert.deepEqual([long.content, long.truncated], [`     1\t${"x".repeat(1000)}...\n`, true]);
    const binary = await ground.workspace.readText(`${dir}/binary`);
    assert.deepEqual([binary.content, binary.binary, binary.totalLines], ["", true, 0]);
    assert.equal((await ground.read(`${dir}/lossy`)).toString("hex"), "61ff620a");
  });
}
