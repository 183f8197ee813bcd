import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFile,
  chmod,
  chown,
  link,
  lutimes,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { extract } from "tar-stream";
import { type FileRig, faultOf, fileRig, raw } from "../../support/file-rig.ts";
import { copyTree, receiveTar, sendTar, treeLines } from "../../support/tree-rig.ts";

/** A tree with one of everything that trees carry. */
async function everything(rig: FileRig): Promise<string> {
  const root = rig.at("src");
  const at = (name: string) => join(root, name);
  await mkdir(at("dir/deep/er"), { recursive: true });
  await mkdir(at("empty-dir"));
  await writeFile(at("empty-file"), "");
  await writeFile(at("script.sh"), "#!/bin/sh\n");
  await chown(at("script.sh"), 1000, 70_000_000);
  await chmod(at("script.sh"), 0o6751);
  await writeFile(at("dir/big"), Buffer.alloc(700_001, "big "));
  await writeFile(at(`dir/${"n".repeat(255)}`), "long name");
  await writeFile(at("dir/deep/er/ünï—코드"), "utf-8");
  // Cut to the 100 bytes of a header, the file's name ends in a slash.
  await mkdir(at("x".repeat(99)));
  await writeFile(at(`${"x".repeat(99)}/leaf`), "leaf");
  await writeFile(raw(root, "bytes\xff\xfe\x01"), "raw");
  await mkdir(raw(root, "d\xe9"));
  await symlink(Buffer.from("t\xffarget", "latin1"), raw(root, "d\xe9/l\xff"));
  await symlink("/etc/passwd", at("absolute-link"));
  await symlink("l".repeat(300), at("long-link"));
  await symlink("dir", at("dir-link"));
  await writeFile(at("dir/one"), "two names");
  await link(at("dir/one"), at("z-two"));
  await link(at("dir/one"), at("dir/deep/three"));
  const hole = await open(at("sparse"), "w");
  await hole.write("start", 0);
  await hole.write("end", 6 << 20);
  await hole.truncate(8 << 20);
  await hole.close();
  await utimes(at("script.sh"), 0, 1_234_567_890.123457);
  await lutimes(at("dir-link"), 0, 1_600_000_000.654321);
  await utimes(at("empty-file"), 0, -1.5);
  await chmod(at("dir/deep"), 0o555);
  await chown(at("dir"), 5, 6);
  await chmod(at("dir"), 0o2775);
  for (const name of ["dir/deep/er", "dir/deep", "dir", "empty-dir", "."])
    await utimes(at(name), 0, 1_111_111_111.000001);
  return root;
}

test("a copied tree is the same: content, modes, owners, times, links, names of any bytes, holes", async () => {
  await using rig = await fileRig();
  const root = await everything(rig);
  const answer = await copyTree(rig, "src", "new/copy");
  assert.deepEqual(treeLines(rig.at("new/copy")), treeLines(root));
  const sparse = await stat(rig.at("new/copy/sparse"));
  assert.ok(sparse.blocks * 512 < 64 << 10, `${sparse.blocks} blocks`);
  assert.equal(await readlink(raw(rig.at("new/copy"), "d\xe9/l\xff"), "latin1"), "t\xffarget");
  const again = await receiveTar(rig, "new/copy");
  assert.deepEqual(again.summary.sha256, answer.summary?.sha256);
  assert.equal(answer.summary?.entries, 22n);
  assert.deepEqual([answer.conflicts, answer.summary?.skipped], [[], []]);
});

test("GNU tar, Python and tar-stream read what ReadTree sends", async () => {
  await using rig = await fileRig();
  const root = await everything(rig);
  const { tar } = await receiveTar(rig, "src");
  await mkdir(rig.at("gnu"));
  execFileSync("tar", ["xp", "--numeric-owner", "-C", rig.at("gnu")], {
    input: tar,
    stdio: ["pipe", "pipe", "ignore"],
  });
  // GNU tar sets no times before 1970 from pax records with a fraction the way we round.
  const withoutOld = (lines: string[]) => lines.filter((line) => !line.includes("empty-file"));
  assert.deepEqual(withoutOld(treeLines(rig.at("gnu"))), withoutOld(treeLines(root)));
  await writeFile(rig.at("t.tar"), tar);
  const script =
    "import tarfile,sys,os\nfor m in tarfile.open(sys.argv[1]): sys.stdout.buffer.write(os.fsencode(m.name)+b'\\n')";
  const names = execFileSync("python3", ["-c", script, rig.at("t.tar")])
    .toString("latin1")
    .split("\n");
  assert.ok(names.includes("bytes\xff\xfe\x01"), names.join());
  assert.ok(names.includes("d\xe9/l\xff"));
  const reader = extract();
  reader.end(tar);
  const kinds: string[] = [];
  for await (const entry of reader) {
    kinds.push(entry.header.type ?? "");
    entry.resume();
  }
  const count = (kind: string) => kinds.filter((one) => one === kind).length;
  assert.deepEqual(
    [count("directory"), count("file"), count("link"), count("symlink"), kinds.length],
    [7, 9, 2, 4, 22],
  );
});

test("WriteTree reads pax, GNU, ustar and v7 tars of GNU tar", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src/dir"), { recursive: true });
  await writeFile(rig.at("src/dir/file"), "content");
  await utimes(rig.at("src/dir/file"), 0, 1_500_000_000);
  await link(rig.at("src/dir/file"), rig.at("src/second"));
  await symlink("dir/file", rig.at("src/link"));
  for (const format of ["v7", "ustar", "gnu", "pax"]) {
    if (format === "gnu" || format === "pax") {
      await writeFile(rig.at(`src/${"long".repeat(60)}`), "x");
      await writeFile(raw(rig.at("src"), "\xff"), "x");
      await symlink("t".repeat(200), rig.at(`src/${format}-long-link`));
    }
    const tar = execFileSync("tar", ["c", `--format=${format}`, "-C", rig.at("src"), "."]);
    await sendTar(rig, `to-${format}`, tar);
    const seconds = (lines: string[]) => lines.map((line) => line.replaceAll(/(\d{10})\d{6} /g, "$1 "));
    assert.deepEqual(seconds(treeLines(rig.at(`to-${format}`))), seconds(treeLines(rig.at("src"))), format);
  }
});

test("extended attributes travel where the runtime reaches them, and are told where it does not", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"));
  await writeFile(rig.at("src/f"), "");
  const { summary } = await receiveTar(rig, "src");
  assert.equal(summary.xattrsUnsupported, process.versions["bun"] === undefined);
});

test("a single file is a tree of one entry with its base name, a root that is a link is followed", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("one.txt"), "1");
  await chmod(rig.at("one.txt"), 0o640);
  await symlink("one.txt", rig.at("link.txt"));
  await copyTree(rig, "one.txt", "to");
  await copyTree(rig, "link.txt", "to");
  assert.deepEqual((await readdir(rig.at("to"))).sort(), ["link.txt", "one.txt"]);
  assert.equal((await stat(rig.at("to/one.txt"))).mode & 0o777, 0o640);
  assert.ok((await stat(rig.at("to/link.txt"))).isFile());
});

test("sockets, FIFOs, devices and kernel file systems are left out and told, and so are our own temporary files", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src/proc"), { recursive: true });
  await writeFile(rig.at("src/file"), "x");
  await writeFile(rig.at("src/.memoh-tmp-01234567-89ab-cdef-0123-456789abcdef"), "half");
  execFileSync("mkfifo", [rig.at("src/fifo")]);
  execFileSync("mknod", [rig.at("src/null"), "c", "1", "3"]);
  await using socket = createServer();
  socket.listen(rig.at("src/sock"));
  execFileSync("mount", ["-t", "proc", "proc", rig.at("src/proc")]);
  try {
    const answer = await copyTree(rig, "src", "copy");
    assert.deepEqual((await readdir(rig.at("copy"))).sort(), ["file", "proc"]);
    assert.deepEqual(await readdir(rig.at("copy/proc")), []);
    assert.equal(answer.summary?.entries, 3n);
    const { summary } = await receiveTar(rig, "src");
    const told = summary.skipped.map(
      (skip) => `${Buffer.from(skip.pathRaw).toString()} ${skip.reason} ${skip.failed}`,
    );
    assert.deepEqual(told.sort(), [
      "fifo is a FIFO false",
      "null is a device false",
      "proc its content is a view into the kernel false",
      "sock is a socket false",
    ]);
  } finally {
    execFileSync("umount", [rig.at("src/proc")]);
  }
});

test("a file that shrinks while it is read keeps its announced size and is told, one that grows is cut", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"));
  const big = Buffer.alloc(4 << 20, "x");
  for (const name of ["grows", "shrinks"]) {
    await writeFile(rig.at(`src/${name}`), big);
    const tree = await rig.files.readTree("src");
    const parts: Uint8Array[] = [];
    for await (const chunk of tree.data) {
      if (parts.length === 0) {
        if (name === "grows") await appendFile(rig.at("src/grows"), big);
        else await truncate(rig.at("src/shrinks"), 1 << 20);
      }
      parts.push(chunk);
    }
    const summary = await tree.summary;
    await sendTar(rig, `to-${name}`, Buffer.concat(parts));
    assert.equal((await stat(rig.at(`to-${name}/${name}`))).size, 4 << 20);
    const failed = summary.skipped.filter((skip) => skip.failed).map((skip) => skip.path.toString());
    assert.deepEqual(failed, name === "shrinks" ? ["shrinks"] : []);
    await rm(rig.at("src"), { recursive: true });
    await mkdir(rig.at("src"));
  }
});

test("what cannot be read is told as failed, and the rest is copied", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src/closed"), { recursive: true });
  await writeFile(rig.at("src/secret"), "s", { mode: 0o600 });
  await writeFile(rig.at("src/open"), "o");
  await chmod(rig.at("src/closed"), 0o700);
  for (const part of [join(rig.dir, ".."), rig.dir, rig.at("src")]) await chmod(part, 0o755);
  // As somebody else, because root reads everything.
  const script = `
    const { LocalFiles } = await import(${JSON.stringify(new URL("../../../src/agent/files/local-files.ts", import.meta.url).href)});
    const files = new LocalFiles({ workDir: ${JSON.stringify(rig.dir)} });
    const tree = await files.readTree("src");
    for await (const chunk of tree.data) process.stdout.write(chunk);
    const told = (await tree.summary).skipped.map((s) => [s.path.toString(), s.reason, s.failed]);
    const codes = [];
    for (const work of [() => files.readText("src/secret"), () => files.writeFile("src/new", Buffer.from("x")),
      () => files.writeFile("src/open", Buffer.from("x")), () => files.list("src/closed"), () => files.mkdir("src/d"),
      () => files.stat("src/closed/x"), () => files.remove("src/open"), () => files.rename("src/open", "src/x")])
      codes.push(await work().then(() => "ok", (error) => error.code));
    process.stderr.write(JSON.stringify({ told, codes }));
  `;
  const { spawnSync } = await import("node:child_process");
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    uid: 65534,
    gid: 65534,
    maxBuffer: 1 << 20,
  });
  const { told, codes } = JSON.parse(child.stderr.toString()) as { told: unknown; codes: string[] };
  assert.deepEqual(told, [
    ["closed", "cannot be read: permission denied", true],
    ["secret", "cannot be read: permission denied", true],
  ]);
  assert.deepEqual(new Set(codes), new Set(["permission_denied"]));
  await sendTar(rig, "copy", child.stdout);
  assert.deepEqual((await readdir(rig.at("copy"))).sort(), ["closed", "open"]);
});

test("a tree deeper than any path, and a wide one, are copied", async () => {
  await using rig = await fileRig();
  const script =
    "import os,sys\nos.mkdir(sys.argv[1]); os.chdir(sys.argv[1])\nfor i in range(500): open(f'w{i}','w').write(str(i))\nfor i in range(200):\n  os.mkdir('d'*30); os.chdir('d'*30)\nopen('leaf','w').write('leaf')";
  execFileSync("python3", ["-c", script, rig.at("src")]);
  const open = (await readdir("/proc/self/fd")).length;
  const tree = await rig.files.readTree("src");
  const { summary } = await rig.files.writeTree("copy", tree.data, { expected: () => tree.summary });
  assert.equal(summary.entries, 1 + 500 + 200 + 1);
  assert.equal((await readdir("/proc/self/fd")).length, open);
  assert.equal((await rig.client.listDir({ path: "copy", recursive: true })).totalCount, 701);
  await rig.client.deleteFile({ path: "copy", recursive: true });
  await rig.client.deleteFile({ path: "src", recursive: true });
});

test("the path of a tree has to be there and be a file or directory", async () => {
  await using rig = await fileRig();
  execFileSync("mkfifo", [rig.at("fifo")]);
  await assert.rejects(receiveTar(rig, "no"), faultOf("not_found", "open: "));
  await assert.rejects(receiveTar(rig, "fifo"), faultOf("failed_precondition", "is a FIFO"));
  await assert.rejects(receiveTar(rig, ""), faultOf("invalid_argument", "path is required"));
  await assert.rejects(sendTar(rig, "fifo", Buffer.alloc(1024)), faultOf("failed_precondition"));
  await assert.rejects(
    rig.client.writeTree([]),
    faultOf("invalid_argument", "first chunk must include path"),
  );
});

test("a tree that is not read to its end leaves nothing open and says so in its summary", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("src"));
  for (let i = 0; i < 100; i++) await writeFile(rig.at(`src/${i}`), Buffer.alloc(100_000));
  const before = (await readdir("/proc/self/fd")).length;
  const tree = await rig.files.readTree("src");
  for await (const chunk of tree.data) if (chunk.length > 0) break;
  await assert.rejects(tree.summary, faultOf("cancelled"));
  const untaken = await rig.files.readTree("src");
  assert.ok(untaken);
  assert.equal((await readdir("/proc/self/fd")).length, before);
  assert.equal((await readFile(rig.at("src/1"))).length, 100_000);
});
