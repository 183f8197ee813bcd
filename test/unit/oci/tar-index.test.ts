import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { mustRun } from "../../../src/lib/command.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { indexTar, readAt } from "../../../src/oci/tar-index.ts";

let dir: string;

before(async () => {
  dir = await mkdtemp("/tmp/memoh-tar-");
});

after(async () => {
  await rm(dir, { recursive: true, force: true });
});

/** A tar made by tar itself. */
async function tarOf(files: Readonly<Record<string, string>>, ...args: string[]): Promise<string> {
  const work = await mkdtemp(join(dir, "work-"));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(work, name)), { recursive: true });
    await writeFile(join(work, name), content);
  }
  const path = `${work}.tar`;
  await mustRun(["tar", "-cf", path, ...args, "-C", work, "."]);
  return path;
}

async function contents(path: string): Promise<Record<string, string>> {
  await using file = await open(path);
  const found: Record<string, string> = {};
  for (const [name, { offset, size, link }] of await indexTar(file, "the test")) {
    found[name] = link === undefined ? ((await readAt(file, offset, size))?.toString() ?? "?") : `-> ${link}`;
  }
  return found;
}

async function refuses(path: string, code: "invalid_argument" | "data_loss", words: RegExp): Promise<void> {
  await using file = await open(path);
  await assert.rejects(
    indexTar(file, "the test"),
    (error) => Fault.is(error, code) && words.test(error.message) && error.hint !== undefined,
  );
}

const LONG = `${"directory/".repeat(15)}${"n".repeat(150)}`;

for (const format of ["gnu", "pax", "ustar", "v7"]) {
  void test(`a ${format} tar is read`, async () => {
    const files: Record<string, string> = { a: "one", "dir/b": "two".repeat(1000), empty: "" };
    if (format === "gnu" || format === "pax") files[LONG] = "deep";
    if (format === "ustar") files[`${"p/".repeat(60)}name`] = "prefixed";
    assert.deepEqual(await contents(await tarOf(files, `--format=${format}`)), files);
  });
}

void test("a size too long for octal is read from its bytes", async () => {
  const path = await tarOf({ a: "12345" }, "--format=gnu");
  const tar = await readFile(path);
  const at = tar.indexOf("./a");
  const header = tar.subarray(at, at + 512);
  Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]).copy(header, 124);
  checksum(header);
  await writeFile(path, tar);
  assert.deepEqual(await contents(path), { a: "12345" });
});

void test("symbolic and hard links say what they point to", async () => {
  const work = await mkdtemp(join(dir, "links-"));
  await mustRun(["sh", "-c", "mkdir x y; echo one > x/a; ln -s ../x/a y/s; ln x/a y/h"], { cwd: work });
  await mustRun(["tar", "-cf", `${work}.tar`, "-C", work, "x", "y/s", "y/h"]);
  assert.deepEqual(await contents(`${work}.tar`), { "x/a": "one\n", "y/s": "-> x/a", "y/h": "-> x/a" });
});

void test("names that climb out stay inside", async () => {
  const path = await tarOf({ a: "one" }, "--transform=s,^./a,../../etc/a,", "-P");
  assert.deepEqual(Object.keys(await contents(path)), ["etc/a"]);
});

void test("a member that is cut off is noticed", async () => {
  const path = await tarOf({ a: "x".repeat(5000) });
  await writeFile(path, (await readFile(path)).subarray(0, 3000));
  await refuses(path, "data_loss", /cut off/);
});

void test("a damaged header is noticed and placed", async () => {
  const path = await tarOf({ a: "one", b: "two" });
  const tar = await readFile(path);
  const at = tar.lastIndexOf("./");
  tar.fill(0xff, at, at + 10);
  await writeFile(path, tar);
  await refuses(path, "data_loss", new RegExp(`damaged at byte ${at}`));
});

void test("a size that is negative or nonsense is damage", async () => {
  for (const size of ["77777777777x", "-1         "]) {
    const path = await tarOf({ a: "one" });
    const tar = await readFile(path);
    const at = tar.indexOf("./a");
    const header = tar.subarray(at, at + 512);
    header.write(size.padEnd(12, "\0"), 124, "latin1");
    checksum(header);
    await writeFile(path, tar);
    await refuses(path, "data_loss", /damaged/);
  }
});

void test("what is no tar is told apart from what is a packed one", async () => {
  const path = join(dir, "thing");
  for (const [content, words] of [
    ["", /no image archive/],
    ["short", /no image archive/],
    ["text ".repeat(1000), /no image archive/],
    [Buffer.alloc(10_240), /no image archive/],
    [Buffer.from([0x1f, 0x8b, 8, 0]), /compressed/],
    [Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), Buffer.alloc(2000, 1)]), /compressed/],
  ] as const) {
    await writeFile(path, content);
    await refuses(path, "invalid_argument", words);
  }
});

void test("an extension of any size is not taken", async () => {
  const path = await tarOf({ [LONG]: "x".repeat(3 << 20) }, "--format=gnu");
  const tar = await readFile(path);
  const at = tar.indexOf("././@LongLink");
  const header = tar.subarray(at, at + 512);
  header.write(`${(2 << 20).toString(8).padStart(11, "0")}\0`, 124, "latin1");
  checksum(header);
  await writeFile(path, tar);
  await refuses(path, "data_loss", /damaged/);
});

function checksum(header: Buffer): void {
  header.fill(" ", 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
}
