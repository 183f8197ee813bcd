// Writes: whole or not at all, and everything about the old file that is not its content stays.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { faultOf, pieces, until } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

/** Bytes that differ everywhere. */
function noise(size: number): Buffer {
  const block = createHash("sha512").update(String(size)).digest();
  const bytes = Buffer.alloc(size, block);
  for (let i = 0; i < size; i += 4096) bytes.writeUInt32LE(i, Math.min(i, size - 4));
  return bytes;
}

export function writeTests(ground: Ground): void {
  test("what was written is what is read, byte for byte", async () => {
    const dir = await ground.fresh();
    const content = noise(1 << 20);
    await ground.workspace.writeFile(`${dir}/f`, content);
    assert.ok((await ground.read(`${dir}/f`)).equals(content));
  });

  test("a large stream arrives whole, as the machine there sees it", async () => {
    const dir = await ground.fresh();
    const content = noise(9_000_001);
    const source = pieces(
      content.subarray(0, 1),
      content.subarray(1, 5_000_000),
      content.subarray(5_000_000),
    );
    assert.equal(await ground.workspace.writeRaw(`${dir}/f`, source), content.length);
    const sum = createHash("sha256").update(content).digest("hex");
    assert.match(await ground.sh("sha256sum f", dir), new RegExp(sum));
  });

  test("content larger than any message is written in one call", async () => {
    const dir = await ground.fresh();
    const content = noise(25 << 20);
    await ground.workspace.writeFile(`${dir}/f`, content);
    const sum = createHash("sha256").update(content).digest("hex");
    assert.match(await ground.sh("sha256sum f", dir), new RegExp(sum));
  });

  test("empty files are made by either way of writing", async () => {
    const dir = await ground.fresh();
    await ground.workspace.writeFile(`${dir}/a`, Buffer.alloc(0));
    assert.equal(await ground.workspace.writeRaw(`${dir}/b`, pieces()), 0);
    assert.equal(await ground.workspace.writeRaw(`${dir}/c`, pieces("", "")), 0);
    assert.equal(await ground.sh("wc -c a b c | tail -n 1", dir).then((s) => s.trim()), "0 total");
    assert.equal((await ground.read(`${dir}/b`)).length, 0);
  });

  test("shorter content leaves nothing of the longer one", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "a long first content");
    await ground.write(`${dir}/f`, "short");
    assert.equal(await ground.text(`${dir}/f`), "short");
    assert.equal(await ground.workspace.writeRaw(`${dir}/f`, pieces("ti", "ny")), 4);
    assert.equal(await ground.text(`${dir}/f`), "tiny");
  });

  test("missing directories on the way are made", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/a/b/f`, "x");
    await ground.workspace.writeRaw(`${dir}/c/d/f`, pieces("y"));
    assert.equal(await ground.sh("cat a/b/f c/d/f", dir), "xy");
  });

  test("an existing file keeps its mode and its owner", async () => {
    const dir = await ground.fresh();
    await ground.sh("printf old > f; chown 1234:2345 f; chmod 4755 f; cp -p f g", dir);
    await ground.write(`${dir}/f`, "new");
    await ground.workspace.writeRaw(`${dir}/g`, pieces("new"));
    for (const name of ["f", "g"]) {
      const { perm, uid, gid } = await ground.workspace.stat(`${dir}/${name}`);
      assert.deepEqual([perm, uid, gid], [0o4755, 1234, 2345], name);
    }
  });

  test("a write through a link changes the file behind it, and the link stays", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir sub; printf old > sub/f; ln -s sub/f link", dir);
    await ground.write(`${dir}/link`, "new");
    assert.equal(await ground.sh("cat sub/f; readlink link", dir), "newsub/f\n");
    assert.equal(await ground.sh("ls -A sub", dir), "f\n");
  });

  test("a file with two names keeps both", async () => {
    const dir = await ground.fresh();
    await ground.sh("printf old > a; ln a b", dir);
    await ground.write(`${dir}/a`, "new");
    assert.equal(await ground.text(`${dir}/b`), "new");
    assert.equal(await ground.sh("stat -c %h a", dir), "2\n");
  });

  test("a directory, a FIFO and a device are refused at once", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir d; mkfifo p", dir);
    for (const path of [`${dir}/d`, `${dir}/p`, "/dev/zero"]) {
      await faultOf(ground.workspace.writeFile(path, Buffer.from("x")), "failed_precondition");
      await faultOf(ground.workspace.writeRaw(path, pieces("x")), "failed_precondition");
    }
  });

  test("a source that fails leaves the old file, makes no new one, and says why", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "old");
    async function* failing() {
      yield await Promise.resolve(noise(300_000));
      throw new Fault("unavailable", "the sender's disk is gone");
    }
    for (const name of ["f", "new"]) {
      const fault = await faultOf(ground.workspace.writeRaw(`${dir}/${name}`, failing()), "unavailable");
      assert.equal(fault.message, "the sender's disk is gone");
    }
    await until("nothing is left of it", async () => (await ground.sh("ls -A", dir)) === "f\n");
    assert.equal(await ground.text(`${dir}/f`), "old");
  });

  test("a write that is called off leaves the old file, however far it was", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "old");
    for (let round = 0; round < 12; round++) {
      const controller = new AbortController();
      const { signal } = controller;
      async function* source() {
        for (let i = 0; i < round; i++) yield await Promise.resolve(noise(100_000));
        await sleep(round % 4);
        controller.abort(new Fault("cancelled", "called off"));
        yield noise(100_000);
      }
      await faultOf(ground.workspace.writeRaw(`${dir}/f`, source(), { signal }), "cancelled");
    }
    await until("nothing is left of it", async () => (await ground.sh("ls -A", dir)) === "f\n");
    assert.equal(await ground.text(`${dir}/f`), "old");
  });

  test("a reader sees the old content or the new one, never a part", async () => {
    const dir = await ground.fresh();
    const contents = [Buffer.alloc(300_000, "a"), Buffer.alloc(200_000, "b")] as const;
    await ground.workspace.writeFile(`${dir}/f`, contents[0]);
    const over = new AbortController();
    const writing = (async () => {
      for (let i = 1; i < 12; i++)
        await ground.workspace.writeFile(`${dir}/f`, contents[i % 2] ?? contents[0]);
      over.abort();
    })();
    while (!over.signal.aborted) {
      const seen = await ground.read(`${dir}/f`);
      assert.ok(seen.equals(contents[0]) || seen.equals(contents[1]), `a part of ${seen.length} bytes`);
    }
    await writing;
  });

  test("writers of one file at the same time leave the content of one of them", async () => {
    const dir = await ground.fresh();
    await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        await ground.workspace.writeRaw(`${dir}/f`, pieces(Buffer.alloc(200_000, 65 + i)));
      }),
    );
    const seen = await ground.read(`${dir}/f`);
    assert.equal(seen.length, 200_000);
    assert.equal(new Set(seen).size, 1);
    assert.equal(await ground.sh("ls -A", dir), "f\n");
  });

  test("a full disk leaves the old file and says so", async () => {
    await using full = await smallDisk(ground);
    await ground.write(`${full.dir}/f`, "old");
    await ground.run({ command: "cat /dev/zero > fill", cwd: full.dir });
    const large = ground.workspace.writeRaw(`${full.dir}/f`, pieces(noise(2 << 20)));
    await faultOf(large, "resource_exhausted");
    assert.equal(await ground.text(`${full.dir}/f`), "old");
    assert.equal(await ground.sh("ls -A", full.dir), "f\nfill\n");
  });
}

/** A directory on a small file system: one of its own, or the shared memory of a container, where nothing mounts. */
async function smallDisk(ground: Ground): Promise<AsyncDisposable & { dir: string }> {
  const dir = await ground.fresh();
  const { status } = await ground.run({ command: ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir] });
  const mounted = status.code === 0;
  const place = mounted ? dir : `/dev/shm/contract-${process.pid}`;
  if (!mounted) {
    const kib = Number(await ground.sh("df -k /dev/shm | awk 'END { print $2 }'"));
    assert.ok(kib > 0 && kib < 1 << 20, `/dev/shm of ${kib} KiB is no small file system`);
    await ground.workspace.mkdir(place);
  }
  return {
    dir: place,
    [Symbol.asyncDispose]: async () => {
      await ground.sh(mounted ? `umount ${place}` : `rm -r ${place}`);
    },
  };
}
