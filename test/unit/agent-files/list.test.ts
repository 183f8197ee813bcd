import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, mkdir, rename, symlink, utimes, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { Directory, DirectoryStack } from "../../../src/agent/files/directory.ts";
import { goMode, goTime } from "../../../src/core/go-format.ts";
import { faultOf, fileRig, raw } from "../../support/file-rig.ts";

test("a flat list has the work directory for an empty path, base names in byte order and links as links", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("b"));
  await writeFile(rig.at("B"), "12345");
  await chmod(rig.at("B"), 0o4640);
  await utimes(rig.at("B"), 0, 1_700_000_000.5);
  await symlink("b", rig.at("a-link"));
  const list = await rig.client.listDir({});
  assert.deepEqual(
    list.entries.map((entry) => [entry.path, entry.isDir, entry.mode]),
    [
      ["B", false, "urw-r-----"],
      ["a-link", false, "Lrwxrwxrwx"],
      ["b", true, "drwxr-xr-x"],
    ],
  );
  const [file, link] = list.entries;
  assert.equal(file?.size, 5n);
  assert.equal(file?.perm, 0o4640);
  assert.equal(file?.modTimeNs, 1_700_000_000_500_000_000n);
  assert.equal(new Date(file?.modTime ?? "").getTime(), 1_700_000_000_000);
  assert.equal(Buffer.from(link?.linkTarget ?? "").toString(), "b");
  assert.deepEqual([list.totalCount, list.truncated], [3, false]);
});

test("a recursive list walks in byte order, parents first, without the root and through no link", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("t/a/deep"), { recursive: true });
  await writeFile(rig.at("t/a/x"), "");
  await writeFile(rig.at("t/a.txt"), "");
  await symlink("..", rig.at("t/up"));
  await symlink("t", rig.at("link-to-t"));
  const expected = ["a", "a/deep", "a/x", "a.txt", "up"];
  for (const path of ["t", "link-to-t"]) {
    const list = await rig.client.listDir({ path, recursive: true });
    assert.deepEqual(
      list.entries.map((entry) => entry.path),
      expected,
    );
  }
});

test("offset and limit page the sorted entries, max_entries refuses more", async () => {
  await using rig = await fileRig();
  for (const name of ["d/1", "d/2", "e"]) await rig.files.writeFile(name, Buffer.from(""));
  const page = async (offset: number, limit: number) => {
    const list = await rig.client.listDir({ recursive: true, offset, limit });
    return [list.entries.map((entry) => entry.path).join(), list.totalCount, list.truncated];
  };
  assert.deepEqual(await page(0, 2), ["d,d/1", 4, true]);
  assert.deepEqual(await page(2, 2), ["d/2,e", 4, false]);
  assert.deepEqual(await page(3, 0), ["e", 4, false]);
  assert.deepEqual(await page(9, 2), ["", 4, false]);
  const flat = await rig.client.listDir({ limit: 1 });
  assert.deepEqual([flat.entries[0]?.path, flat.totalCount, flat.truncated], ["d", 2, true]);
  assert.equal((await rig.client.listDir({ recursive: true, maxEntries: 4 })).entries.length, 4);
  await assert.rejects(
    rig.client.listDir({ recursive: true, maxEntries: 3 }),
    faultOf("resource_exhausted", "more than 3"),
  );
  await assert.rejects(rig.client.listDir({ offset: -1 }), faultOf("invalid_argument"));
});

test("a list of something that is no directory, or not there, is an error, recursive or not", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("file"), "");
  for (const recursive of [false, true]) {
    const list = async (path: string) => await rig.client.listDir({ path, recursive });
    await assert.rejects(list("missing"), faultOf("not_found", "readdir: "));
    await assert.rejects(list("file"), faultOf("failed_precondition", "readdir: "));
    await assert.rejects(list("a\0"), faultOf("invalid_argument"));
  }
});

test("names that are not UTF-8 keep their bytes beside a readable form", async () => {
  await using rig = await fileRig();
  await mkdir(raw(rig.dir, "d\xff"));
  await writeFile(raw(rig.dir, "d\xff/f\xfe"), "");
  await writeFile(rig.at("ä"), "");
  const { entries } = await rig.client.listDir({ recursive: true });
  assert.deepEqual(
    entries.map((entry) => [entry.path, Buffer.from(entry.pathRaw).toString("latin1")]),
    [
      ["d\ufffd", "d\xff"],
      ["d\ufffd/f\ufffd", "d\xff/f\xfe"],
      ["ä", ""],
    ],
  );
});

test("ten thousand entries are listed whole, and a list over 16 MiB is refused with a way out", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("many"));
  // Hard links make entries cheaply, and bytes that are not UTF-8 make them large on the wire.
  const script = [
    "import os, sys",
    "os.chdir(sys.argv[1])",
    "name = lambda i: b'%06d' % i + b'\\xff' * 240",
    "open(name(0), 'w')",
    "[os.link(name(0), name(i)) for i in range(1, 16500)]",
  ];
  execFileSync("python3", ["-c", script.join("\n"), rig.at("many")]);
  const digits = (entry: { pathRaw: Uint8Array } | undefined) =>
    Buffer.from(entry?.pathRaw ?? []).toString("latin1", 0, 6);
  const list = await rig.client.listDir({ path: "many", limit: 10_000 });
  assert.deepEqual([list.entries.length, list.totalCount, list.truncated], [10_000, 16_500, true]);
  assert.equal(digits(list.entries.at(-1)), "009999");
  const large = faultOf("resource_exhausted", "offset and limit");
  await assert.rejects(rig.client.listDir({ path: "many" }), large);
  await assert.rejects(rig.client.listDir({ path: "", recursive: true }), large);
  const last = await rig.client.listDir({ path: "many", offset: 16_499, limit: 10 });
  assert.equal(digits(last.entries[0]), "016499");
});

test("a tree deeper than any path can name is listed and deleted, with what is beside it", async () => {
  await using rig = await fileRig();
  const script = [
    "import os, sys",
    "os.chdir(sys.argv[1])",
    "for i in range(200):",
    "  os.mkdir('d' * 30)",
    "  [open(f'e{n:02}', 'w') for n in range(50 if i == 1 else 1)]",
    "  os.chdir('d' * 30)",
    "open('leaf', 'w')",
  ];
  execFileSync("python3", ["-c", script.join("\n"), rig.dir]);
  const list = await rig.client.listDir({ recursive: true });
  assert.equal(list.totalCount, 200 + 199 + 50 + 1);
  const name = "d".repeat(30);
  assert.equal(list.entries[200]?.path, `${`${name}/`.repeat(200)}leaf`);
  assert.deepEqual(
    list.entries.slice(-3).map((entry) => entry.path),
    [`${name}/e48`, `${name}/e49`, "e00"],
  );
  await rig.client.deleteFile({ path: name, recursive: true });
  assert.equal((await rig.client.listDir({})).totalCount, 1);
});

test("modes print as in Go", () => {
  const cases: readonly (readonly [number, string])[] = [
    [0o100644, "-rw-r--r--"],
    [0o040755, "drwxr-xr-x"],
    [0o120777, "Lrwxrwxrwx"],
    [0o041777, "dtrwxrwxrwx"],
    [0o104755, "urwxr-xr-x"],
    [0o102755, "grwxr-xr-x"],
    [0o010600, "prw-------"],
    [0o140755, "Srwxr-xr-x"],
    [0o060660, "Drw-rw----"],
    [0o020620, "Dcrw--w----"],
  ];
  for (const [mode, text] of cases) assert.equal(goMode(mode), text);
});

test("times print as RFC 3339 of the local zone, and Z for UTC", () => {
  const zone = process.env["TZ"];
  const at = (tz: string, ns: bigint) => {
    process.env["TZ"] = tz;
    return goTime(ns);
  };
  try {
    const ns = 1_772_600_767_999_999_999n;
    assert.equal(at("UTC", ns), "2026-03-04T05:06:07Z");
    assert.equal(at("Europe/Berlin", ns), "2026-03-04T06:06:07+01:00");
    assert.equal(at("America/St_Johns", ns), "2026-03-04T01:36:07-03:30");
    assert.equal(at("UTC", -1n), "1969-12-31T23:59:59Z");
  } finally {
    if (zone === undefined) delete process.env["TZ"];
    else process.env["TZ"] = zone;
  }
});

test("a directory that is moved away while its parents are closed is noticed", async () => {
  await using rig = await fileRig();
  const names = Array.from({ length: 70 }, (_, i) => `d${i}`);
  await mkdir(rig.at(names.join("/")), { recursive: true });
  await using stack = new DirectoryStack(await Directory.open(rig.dir));
  for (const name of names) await stack.push(name);
  // Of the 71 open directories the upper six are closed by now, d3 among them.
  await rename(rig.at("d0/d1/d2/d3/d4/d5"), rig.at("moved"));
  while (stack.depth > 6) await stack.pop();
  await assert.rejects(stack.pop(), faultOf("aborted", "moved"));
});
