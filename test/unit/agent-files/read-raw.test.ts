import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdir, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { bytesOf, faultOf, fileRig } from "../../support/file-rig.ts";

const CHUNK = 256 << 10;

test("a file of any size comes whole, in chunks of at most 256 KiB; an empty one in no chunk", async () => {
  await using rig = await fileRig();
  for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]) {
    const content = randomBytes(size);
    await writeFile(rig.at("f"), content);
    const chunks: Buffer[] = [];
    for await (const { data } of rig.client.readRaw({ path: "f" })) chunks.push(Buffer.from(data));
    assert.deepEqual(Buffer.concat(chunks), content, String(size));
    assert.equal(chunks.length, Math.ceil(size / CHUNK));
    assert.ok(chunks.every((chunk) => chunk.length <= CHUNK));
  }
});

test("offset and length cut a range, beyond the end is nothing, negative is an error", async () => {
  await using rig = await fileRig();
  const content = randomBytes(2 * CHUNK + 10);
  await writeFile(rig.at("f"), content);
  const range = async (offset: number, length: number) => {
    const chunks: Uint8Array[] = [];
    const request = { path: "f", offset: BigInt(offset), length: BigInt(length) };
    for await (const { data } of rig.client.readRaw(request)) chunks.push(data);
    return Buffer.concat(chunks);
  };
  const cases = [
    [0, 1],
    [5, CHUNK],
    [CHUNK, CHUNK],
    [10, 0],
    [2 * CHUNK, 100],
    [2 * CHUNK + 10, 0],
    [9 * CHUNK, 5],
  ] as const;
  for (const [offset, length] of cases) {
    const end = length === 0 ? content.length : offset + length;
    assert.deepEqual(await range(offset, length), content.subarray(offset, end), `${offset}+${length}`);
  }
  await assert.rejects(range(-1, 0), faultOf("invalid_argument"));
  await assert.rejects(range(0, -1), faultOf("invalid_argument"));
});

test("a reader that leaves, is cancelled, or never begins leaves nothing open", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), randomBytes(10 * CHUNK));
  const open = (await readdir("/proc/self/fd")).length;
  for await (const chunk of await rig.files.readRaw("f")) if (chunk.length > 0) break;
  const stop = new AbortController();
  const cancelled = async () => {
    for await (const chunk of await rig.files.readRaw("f", { signal: stop.signal })) {
      if (chunk.length > 0) stop.abort();
    }
  };
  await assert.rejects(cancelled(), faultOf("cancelled"));
  const never = new AbortController();
  const bytes = await rig.files.readRaw("f", { signal: never.signal });
  never.abort();
  await assert.rejects(bytesOf(bytes), faultOf("cancelled"));
  await assert.rejects(rig.files.readRaw("f", { signal: never.signal }), faultOf("cancelled"));
  while ((await readdir("/proc/self/fd")).length > open) await new Promise((done) => setImmediate(done));
});
