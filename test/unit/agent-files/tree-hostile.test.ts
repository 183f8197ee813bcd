import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { link, lstat, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { LocalFiles } from "../../../src/agent/files/local-files.ts";
import { encodeEntry } from "../../../src/agent/tree/tar-entry.ts";
import { decodePax, encodeHeader, encodePax } from "../../../src/agent/tree/tar-format.ts";
import { type TreeEntry, TreeHash } from "../../../src/core/tree-hash.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { type FileRig, faultOf, fileRig } from "../../support/file-rig.ts";
import { copyTree, receiveTar, sendTar, tarOf } from "../../support/tree-rig.ts";

/** Everything in the rig, so that a test can say that nothing changed. */
async function names(rig: FileRig): Promise<string[]> {
  return (await readdir(rig.dir, { recursive: true })).sort();
}

const PLAIN: TreeEntry = {
  type: "file",
  path: "f",
  perm: 0o644,
  uid: 0,
  gid: 0,
  mtimeUs: 0n,
  link: "",
  size: 0,
  xattrs: new Map(),
};

test("entries that lead out of the tree are refused and nothing outside is touched", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("victim"), "safe");
  const refused = faultOf("invalid_argument", "leads out of the tree");
  for (const name of ["/etc/memoh-no", "../victim", "a/../../victim", "..", "./..", "a/.."]) {
    await assert.rejects(sendTar(rig, "t", await tarOf({ name, content: "evil" })), refused, name);
    await assert.rejects(sendTar(rig, "t", await tarOf({ name, type: "directory" })), refused, name);
    await assert.rejects(
      sendTar(rig, "t", await tarOf({ name, type: "symlink", linkname: "x" })),
      refused,
      name,
    );
    await assert.rejects(
      sendTar(rig, "t", await tarOf({ name: "l", type: "link", linkname: name })),
      refused,
      name,
    );
  }
  const nul = Buffer.concat([encodeEntry({ ...PLAIN, path: `${"a".repeat(120)}\0b` }), Buffer.alloc(1024)]);
  await assert.rejects(sendTar(rig, "t", nul), refused);
  assert.deepEqual(await names(rig), ["t", "victim"]);
  assert.equal(await readFile(rig.at("victim"), "utf8"), "safe");
});

test("nothing is written through a link on the way down, whether the tar brought it or it was there", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("outside"));
  await writeFile(rig.at("outside/kept"), "kept");
  const through = await tarOf(
    { name: "d", type: "symlink", linkname: rig.at("outside") },
    { name: "d/planted", content: "evil" },
  );
  for (const rule of ["fail", "replace", "keep", "rename"] as const) {
    await mkdir(rig.at(`there-${rule}`));
    await symlink("../outside", rig.at(`there-${rule}/d`));
    const inWay = faultOf("failed_precondition", "not a directory");
    await assert.rejects(sendTar(rig, `new-${rule}`, through, rule), inWay);
    await assert.rejects(sendTar(rig, `there-${rule}`, await tarOf({ name: "d/planted" }), rule), inWay);
  }
  // A directory of the tree takes the place of a link only when it is told to replace.
  const directory = await tarOf({ name: "d", type: "directory" }, { name: "d/file", content: "inside" });
  await assert.rejects(sendTar(rig, "there-fail", directory, "fail"), faultOf("already_exists"));
  await sendTar(rig, "there-replace", directory, "replace");
  assert.ok((await lstat(rig.at("there-replace/d"))).isDirectory());
  assert.deepEqual((await sendTar(rig, "there-keep", directory, "keep")).conflicts, ["d"]);
  assert.deepEqual((await sendTar(rig, "there-rename", directory, "rename")).conflicts, ["d"]);
  assert.equal(await readFile(rig.at("there-rename/d.from-host/file"), "utf8"), "inside");
  // A file arriving at a link takes the link's place, not that of what it leads to.
  await symlink("../outside/kept", rig.at("there-replace/f"));
  await sendTar(rig, "there-replace", await tarOf({ name: "f", content: "new" }), "replace");
  assert.ok((await lstat(rig.at("there-replace/f"))).isFile());
  assert.deepEqual(await readdir(rig.at("outside")), ["kept"]);
  assert.equal(await readFile(rig.at("outside/kept"), "utf8"), "kept");
});

test("hard links lead to files of the tree only", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("secret"), "secret");
  await mkdir(rig.at("t"));
  await symlink("../secret", rig.at("t/to-secret"));
  await symlink("..", rig.at("t/up"));
  await mkdir(rig.at("t/dir"));
  for (const linkname of ["to-secret", "up/secret", "missing", "dir", "."]) {
    const tar = await tarOf({ name: "hard", type: "link", linkname });
    await assert.rejects(
      sendTar(rig, "t", tar),
      faultOf("failed_precondition", "no file of the tree"),
      linkname,
    );
  }
  assert.equal((await stat(rig.at("secret"))).nlink, 1);
});

test("devices, FIFOs, foreign sparse files and unknown types are refused", async () => {
  await using rig = await fileRig();
  for (const type of ["character-device", "block-device", "fifo"] as const) {
    const tar = await tarOf({ name: "d", type, devmajor: 1, devminor: 3 });
    await assert.rejects(sendTar(rig, "t", tar), faultOf("invalid_argument", /is a (device|FIFO)/));
  }
  const sparse = encodePax(
    new Map([
      ["GNU.sparse.major", "1"],
      ["path", "s"],
    ]),
  );
  const header = { name: "x", mode: 0, uid: 0, gid: 0, size: sparse.length, mtime: 0, type: "x", link: "" };
  const tar = Buffer.concat([
    encodeHeader(header),
    sparse,
    Buffer.alloc(512 - sparse.length),
    encodeEntry(PLAIN),
    Buffer.alloc(1024),
  ]);
  await assert.rejects(sendTar(rig, "t", tar), faultOf("invalid_argument", "sparse file of GNU tar"));
  const unknown = Buffer.concat([encodeHeader({ ...header, type: "Q", size: 0 }), Buffer.alloc(1024)]);
  await assert.rejects(sendTar(rig, "t", unknown), faultOf("invalid_argument", "unknown type"));
  assert.deepEqual(await readdir(rig.at("t")), []);
});

test("bytes that are no tar, or end too early, are refused and leave no half file", async () => {
  await using rig = await fileRig();
  const good = await tarOf({ name: "a", content: "a".repeat(2000) }, { name: "b", content: "b" });
  await assert.rejects(sendTar(rig, "t", Buffer.alloc(2048, "x")), faultOf("invalid_argument", "checksum"));
  await assert.rejects(sendTar(rig, "t", Buffer.alloc(0)), faultOf("data_loss", "end mark"));
  for (const length of [100, 512, 600, 1024, 2560, 3072, 3583, 3584]) {
    await assert.rejects(
      sendTar(rig, "t", good.subarray(0, length), "replace"),
      faultOf("data_loss", "end mark"),
    );
  }
  assert.deepEqual(
    (await readdir(rig.at("t"))).filter((name) => name !== "a" && name !== "b"),
    [],
  );
  for (const size of [-1, 9_000_000_000_000_000]) {
    const block = encodeHeader({
      name: "n",
      mode: 0,
      uid: 0,
      gid: 0,
      size: 0,
      mtime: 0,
      type: "x",
      link: "",
    });
    block.fill(0, 124, 136);
    // GNU's base 256, negative and far too large for an extended header.
    block[124] = size < 0 ? 0xff : 0x80;
    block.writeBigInt64BE(BigInt(size), 128);
    if (size < 0) block.fill(0xff, 125, 128);
    let sum = 256;
    for (let i = 0; i < 512; i++) if (i < 148 || i > 155) sum += block[i] ?? 0;
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    await assert.rejects(sendTar(rig, "t", block), faultOf("invalid_argument", "too large"));
  }
});

test("malformed pax records are refused", () => {
  const malformed = [
    "5 a=b",
    "99 a=b\n",
    "x a=b\n",
    "-6 a=b\n",
    "0 a=b\n",
    "6 abc\n",
    "6 a=bX",
    "7 a=b\n",
    " a=b\n",
    "1000000000 a=b\n",
  ];
  for (const text of malformed)
    assert.throws(() => decodePax(Buffer.from(text)), faultOf("invalid_argument"), text);
  assert.deepEqual(
    [...decodePax(Buffer.from("6 a=b\n8 k==\n\n\n"))],
    [
      ["a", "b"],
      ["k", "=\n\n"],
    ],
  );
});

test("an entry that comes twice, and a file that is a directory further on, obey the rule of conflicts", async () => {
  await using rig = await fileRig();
  const twice = await tarOf({ name: "f", content: "first" }, { name: "./f", content: "second" });
  await assert.rejects(sendTar(rig, "t1", twice), faultOf("already_exists", "f: exists"));
  assert.equal(await readFile(rig.at("t1/f"), "utf8"), "first");
  await sendTar(rig, "t2", twice, "replace");
  assert.equal(await readFile(rig.at("t2/f"), "utf8"), "second");
  assert.deepEqual((await sendTar(rig, "t3", twice, "rename")).conflicts, ["f"]);
  assert.deepEqual((await readdir(rig.at("t3"))).sort(), ["f", "f.from-host"]);
  const under = await tarOf({ name: "f", content: "file" }, { name: "f/g", content: "below" });
  await assert.rejects(sendTar(rig, "t4", under, "replace"), faultOf("failed_precondition"));
  await assert.rejects(
    sendTar(rig, "t5", await tarOf({ name: ".", content: "root" })),
    faultOf("invalid_argument"),
  );
});

test("what exists: fail stops before it, replace takes its place, keep leaves it, rename goes beside it", async () => {
  await using rig = await fileRig();
  const tar = await tarOf(
    { name: "d", type: "directory", mode: 0o700 },
    { name: "d/f", content: "new", mode: 0o600 },
    { name: "d/l", type: "symlink", linkname: "new" },
    { name: "d/new", content: "n" },
  );
  const make = async (name: string) => {
    await mkdir(rig.at(`${name}/d`), { recursive: true });
    await writeFile(rig.at(`${name}/d/f`), "old");
    await symlink("old", rig.at(`${name}/d/l`));
  };
  for (const name of ["fail", "replace", "keep", "rename"]) await make(name);
  await assert.rejects(sendTar(rig, "fail", tar, "fail"), faultOf("already_exists", "d/f: exists"));
  assert.deepEqual(await names(rig).then((all) => all.filter((name) => name.startsWith("fail/d/"))), [
    "fail/d/f",
    "fail/d/l",
  ]);
  const read = async (name: string) => await readFile(rig.at(name), "utf8");

  assert.deepEqual((await sendTar(rig, "replace", tar, "replace")).conflicts, []);
  assert.equal(await read("replace/d/f"), "new");
  assert.equal(await readlink(rig.at("replace/d/l")), "new");
  assert.equal((await stat(rig.at("replace/d"))).mode & 0o777, 0o700);

  assert.deepEqual((await sendTar(rig, "keep", tar, "keep")).conflicts, ["d/f", "d/l"]);
  assert.deepEqual(
    [await read("keep/d/f"), await readlink(rig.at("keep/d/l")), await read("keep/d/new")],
    ["old", "old", "n"],
  );
  assert.equal((await stat(rig.at("keep/d"))).mode & 0o777, 0o755);

  for (const suffix of ["", "-2", "-3"]) {
    const { conflicts } = await sendTar(rig, "rename", tar, "rename");
    assert.equal(conflicts.length, suffix === "" ? 2 : 3);
    assert.equal(await read(`rename/d/f.from-host${suffix}`), "new");
    assert.equal(await readlink(rig.at(`rename/d/l.from-host${suffix}`)), "new");
  }
  assert.equal(await read("rename/d/f"), "old");
});

test("a directory in the place of a file, and a file in the place of a directory", async () => {
  await using rig = await fileRig();
  const directory = await tarOf(
    { name: "x", type: "directory" },
    { name: "x/in", content: "in" },
    { name: "x/deep/er", content: "er" },
  );
  for (const rule of ["fail", "replace", "keep", "rename"]) {
    await mkdir(rig.at(rule));
    await writeFile(rig.at(`${rule}/x`), "file");
  }
  await assert.rejects(sendTar(rig, "fail", directory, "fail"), faultOf("already_exists"));
  await sendTar(rig, "replace", directory, "replace");
  assert.deepEqual((await readdir(rig.at("replace/x"))).sort(), ["deep", "in"]);
  assert.deepEqual((await sendTar(rig, "keep", directory, "keep")).conflicts, ["x"]);
  assert.deepEqual(await readdir(rig.at("keep")), ["x"]);
  assert.deepEqual((await sendTar(rig, "rename", directory, "rename")).conflicts, ["x"]);
  assert.equal(await readFile(rig.at("rename/x.from-host/deep/er"), "utf8"), "er");

  const file = await tarOf({ name: "x", content: "file" });
  await assert.rejects(
    sendTar(rig, "replace", file, "replace"),
    faultOf("failed_precondition", "is a directory"),
  );
  await mkdir(rig.at("keep2/x"), { recursive: true });
  assert.deepEqual((await sendTar(rig, "keep2", file, "keep")).conflicts, ["x"]);
  await sendTar(rig, "keep2", file, "rename");
  assert.deepEqual((await readdir(rig.at("keep2"))).sort(), ["x", "x.from-host"]);
});

test("hard links follow their first name where it went, and say so when it stayed out", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"));
  await writeFile(rig.at("src/a"), "shared");
  await link(rig.at("src/a"), rig.at("src/b"));
  for (const rule of ["replace", "rename", "keep"]) {
    await mkdir(rig.at(rule));
    await writeFile(rig.at(`${rule}/a`), "old");
  }
  const { tar } = await receiveTar(rig, "src");
  await sendTar(rig, "replace", tar, "replace");
  assert.equal((await stat(rig.at("replace/b"))).nlink, 2);
  assert.equal(await readFile(rig.at("replace/a"), "utf8"), "shared");
  await sendTar(rig, "replace", tar, "replace");
  assert.equal((await stat(rig.at("replace/b"))).nlink, 2);
  await sendTar(rig, "rename", tar, "rename");
  assert.equal(await readFile(rig.at("rename/b"), "utf8"), "shared");
  assert.equal((await stat(rig.at("rename/b"))).ino, (await stat(rig.at("rename/a.from-host"))).ino);
  const kept = await sendTar(rig, "keep", tar, "keep");
  assert.deepEqual(kept.conflicts, ["a"]);
  assert.deepEqual(
    kept.summary?.skipped.map((skip) => [Buffer.from(skip.pathRaw).toString(), skip.failed]),
    [["b", true]],
  );
  assert.deepEqual(await readdir(rig.at("keep")), ["a"]);
});

test("a name that is as long as names can be still gets a suffix", async () => {
  await using rig = await fileRig();
  const name = "n".repeat(255);
  await mkdir(rig.at("t"));
  await writeFile(rig.at(`t/${name}`), "old");
  await sendTar(rig, "t", await tarOf({ name, content: "new" }), "rename");
  assert.equal(await readFile(rig.at(`t/${"n".repeat(245)}.from-host`), "utf8"), "new");
});

test("a tree that is not what was sent is data_loss", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"));
  await writeFile(rig.at("src/f"), "content");
  const { tar, summary } = await receiveTar(rig, "src");
  const send = async (path: string, bytes: Buffer) =>
    await rig.client.writeTree([{ path }, { data: bytes }, { summary }]);
  await send("good", tar);
  const changed = Buffer.from(tar);
  changed[changed.indexOf("content")] = 0x43;
  await assert.rejects(send("bad", changed), faultOf("data_loss", "is not what was sent"));
  await assert.rejects(
    rig.client.writeTree([{ path: "worse" }, { data: tar }, { summary: { ...summary, entries: 3n } }]),
    faultOf("data_loss"),
  );
});

test("the hash of a tree is what its definition says", () => {
  const hash = new TreeHash();
  const content = createHash("sha256").update("hi").digest();
  const xattrs = new Map([
    ["user.b", Buffer.from("2")],
    ["user.a", Buffer.from("1")],
  ]);
  hash.add({ ...PLAIN, type: "directory", path: ".", perm: 0o755 });
  hash.add({ ...PLAIN, path: "a\xff", uid: 1, gid: 2, mtimeUs: -1n, size: 2, xattrs }, content);
  hash.add({ ...PLAIN, type: "symlink", path: "l", link: "a" });
  const int = (value: number, bytes = 4) => Buffer.from(value.toString(16).padStart(bytes * 2, "0"), "hex");
  const zeros = (bytes: number) => Buffer.alloc(bytes);
  const text = (value: string) => Buffer.concat([int(value.length), Buffer.from(value, "latin1")]);
  const expected = Buffer.concat([
    Buffer.from("d"),
    text("."),
    int(0o755),
    zeros(4 + 4 + 8 + 4 + 8 + 32 + 4),
    Buffer.from("f"),
    text("a\xff"),
    int(0o644),
    int(1),
    int(2),
    Buffer.alloc(8, 0xff),
    text(""),
    int(2, 8),
    content,
    int(2),
    text("user.a"),
    text("1"),
    text("user.b"),
    text("2"),
    Buffer.from("l"),
    text("l"),
    int(0o644),
    zeros(4 + 4 + 8),
    text("a"),
    zeros(8 + 32 + 4),
  ]);
  assert.deepEqual(hash.digest(), createHash("sha256").update(expected).digest());
  assert.deepEqual([hash.entries, hash.bytes], [3, 2]);
});

test("a tree that breaks off leaves whole files, no temporary ones, and nothing open", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("t"));
  await writeFile(rig.at("t/old"), "old");
  const open = (await readdir("/proc/self/fd")).length;
  const tar = await tarOf({ name: "new", content: "new" }, { name: "old", content: "x".repeat(500_000) });
  const gone = new AbortController();
  async function* breaking(reason: unknown) {
    yield tar.subarray(0, 300_000);
    await new Promise((done) => setImmediate(done));
    if (reason === undefined) {
      gone.abort();
      await new Promise(() => undefined);
    }
    throw reason;
  }
  const write = rig.files.writeTree("t", breaking(new Fault("unavailable", "sender died")), {
    conflict: "replace",
  });
  await assert.rejects(write, faultOf("unavailable"));
  const cancelled = rig.files.writeTree("t", breaking(undefined), {
    conflict: "replace",
    signal: gone.signal,
  });
  await assert.rejects(cancelled, faultOf("cancelled"));
  assert.equal(await readFile(rig.at("t/old"), "utf8"), "old");
  assert.deepEqual(
    (await readdir(rig.at("t"))).filter((name) => name.startsWith(".")),
    [],
  );
  assert.equal((await readdir("/proc/self/fd")).length, open);
});

test("a full disk stops a tree with resource_exhausted and leaves no temporary file", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("small"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", rig.at("small")]);
  try {
    for (const size of [2 << 20, 60_000]) {
      const entries = Array.from({ length: 40 }, (_, i) => ({
        name: `f${i}`,
        content: "x".repeat(size),
      })).slice(0, (3 << 20) / size + 1);
      await assert.rejects(
        sendTar(rig, "small", await tarOf(...entries), "replace"),
        faultOf("resource_exhausted", "no space left"),
      );
      assert.deepEqual(
        (await readdir(rig.at("small"))).filter((name) => name.startsWith(".")),
        [],
      );
    }
  } finally {
    execFileSync("umount", [rig.at("small")]);
  }
});

test("a tree from somebody less trusted becomes the files of this user, without set-id bits", async () => {
  await using rig = await fileRig();
  const tar = await tarOf(
    { name: "sh", content: "x", mode: 0o6755, uid: 1234, gid: 1234 },
    { name: "d", type: "directory", mode: 0o3777, uid: 1234 },
  );
  const own = new LocalFiles({ workDir: rig.dir, ownership: "own" });
  await own.writeTree(
    "t",
    (async function* () {
      await Promise.resolve();
      yield tar;
    })(),
  );
  const file = await stat(rig.at("t/sh"));
  const directory = await stat(rig.at("t/d"));
  assert.deepEqual([file.mode & 0o7777, file.uid, file.gid], [0o755, 0, 0]);
  assert.deepEqual([directory.mode & 0o7777, directory.uid], [0o1777, 0]);
});

test("a target is made with its parents, merges into what exists, and keeps its own attributes unless replaced", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"), { mode: 0o700 });
  await writeFile(rig.at("src/f"), "f");
  await mkdir(rig.at("existing"), { mode: 0o711 });
  await copyTree(rig, "src", "made/here");
  await copyTree(rig, "src", "existing");
  const mode = async (name: string) => (await stat(rig.at(name))).mode & 0o777;
  assert.deepEqual(
    [await mode("made"), await mode("made/here"), await mode("existing")],
    [0o755, 0o700, 0o711],
  );
  await copyTree(rig, "src", "existing", "replace");
  assert.equal(await mode("existing"), 0o700);
  await symlink("existing", rig.at("link"));
  await copyTree(rig, "src", "link", "replace");
  assert.equal(await readlink(rig.at("link")), "existing");
});
