import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { test } from "node:test";
import { bytesOf, faultOf, fileRig, raw } from "../../support/file-rig.ts";

test("lines are numbered in six columns, split at LF, with one CR before it dropped", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("a.txt"), "one\r\ntwo\r\r\n\nlast");
  const page = await rig.client.readFile({ path: "a.txt" });
  assert.equal(page.content, "     1\tone\n     2\ttwo\r\n     3\t\n     4\tlast\n");
  assert.equal(page.totalLines, 4);
  assert.deepEqual([page.binary, page.truncated, page.nextLine, page.lossy], [false, false, 0, false]);
  await writeFile(rig.at("b.txt"), "x\n");
  assert.equal((await rig.client.readFile({ path: "b.txt" })).totalLines, 1);
  await writeFile(rig.at("empty"), "");
  const empty = await rig.client.readFile({ path: "empty" });
  assert.deepEqual([empty.content, empty.totalLines, empty.binary], ["", 0, false]);
});

test("a page starts at line_offset and ends after n_lines, 200 by default and at most", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("n"), Array.from({ length: 500 }, (_, i) => `l${i + 1}\n`).join(""));
  const middle = await rig.client.readFile({ path: "n", lineOffset: 10, nLines: 2 });
  assert.equal(middle.content, "    10\tl10\n    11\tl11\n");
  assert.deepEqual([middle.totalLines, middle.truncated, middle.nextLine], [500, true, 12]);
  for (const nLines of [0, -1, 201, 5000]) {
    const page = await rig.client.readFile({ path: "n", nLines, lineOffset: -3 });
    assert.equal(page.content.split("\n").length - 1, 200);
    assert.equal(page.nextLine, 201);
  }
  const tail = await rig.client.readFile({ path: "n", lineOffset: 499 });
  assert.deepEqual([tail.content, tail.truncated, tail.nextLine], ["   499\tl499\n   500\tl500\n", false, 0]);
  const past = await rig.client.readFile({ path: "n", lineOffset: 501 });
  assert.deepEqual([past.content, past.totalLines, past.truncated, past.nextLine], ["", 500, false, 0]);
});

test("output stops before the line that would take it over 5120 bytes", async () => {
  await using rig = await fileRig();
  // 8 bytes of prefix and LF and 504 of text make ten lines of 512 bytes, exactly 5120.
  await writeFile(rig.at("fits"), `${"x".repeat(504)}\n`.repeat(11));
  const page = await rig.client.readFile({ path: "fits" });
  assert.equal(page.content.length, 5120);
  assert.deepEqual([page.totalLines, page.truncated, page.nextLine], [11, true, 11]);
  await writeFile(rig.at("over"), `${"x".repeat(505)}\n`.repeat(11));
  assert.equal((await rig.client.readFile({ path: "over" })).nextLine, 10);
});

test("a line is cut after 1000 code points and the page says so", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("l"), `${"😀".repeat(1000)}\n${"é".repeat(1001)}\nend`);
  const page = await rig.client.readFile({ path: "l" });
  const lines = page.content.split("\n");
  assert.equal(lines[0], `     1\t${"😀".repeat(1000)}`);
  assert.deepEqual([page.truncated, page.nextLine, page.totalLines], [true, 2, 3]);
  const second = await rig.client.readFile({ path: "l", lineOffset: 2 });
  assert.equal(second.content, `     2\t${"é".repeat(1000)}...\n     3\tend\n`);
  assert.deepEqual([second.truncated, second.nextLine, second.lossy], [true, 0, false]);
});

test("lines of many MiB are counted and cut like any other", async () => {
  await using rig = await fileRig();
  const long = Buffer.alloc(9 << 20, "a");
  await writeFile(
    rig.at("big"),
    Buffer.concat([long, Buffer.from("\nnext\n"), long, Buffer.from("\r\nlast")]),
  );
  const page = await rig.client.readFile({ path: "big" });
  assert.equal(
    page.content,
    `     1\t${"a".repeat(1000)}...\n     2\tnext\n     3\t${"a".repeat(1000)}...\n     4\tlast\n`,
  );
  assert.deepEqual([page.totalLines, page.truncated], [4, true]);
});

test("a NUL among the first 8192 bytes makes a file binary, a later one does not", async () => {
  await using rig = await fileRig();
  const text = Buffer.alloc(20_000, "a\n");
  await writeFile(rig.at("at8191"), Object.assign(Buffer.from(text), { 8191: 0 }));
  const binary = await rig.client.readFile({ path: "at8191" });
  assert.deepEqual([binary.binary, binary.content, binary.totalLines], [true, "", 0]);
  await writeFile(rig.at("at8192"), Object.assign(Buffer.from(text), { 8192: 0 }));
  const page = await rig.client.readFile({ path: "at8192" });
  assert.deepEqual([page.binary, page.totalLines], [false, 10_000]);
});

test("bytes that are not UTF-8 stand as U+FFFD and are told apart from a real U+FFFD", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("latin1"), Buffer.from("caf\xe9\nok\n", "latin1"));
  const lossy = await rig.client.readFile({ path: "latin1" });
  assert.deepEqual([lossy.content, lossy.lossy], ["     1\tcaf\ufffd\n     2\tok\n", true]);
  await writeFile(rig.at("real"), "caf\ufffd\n");
  const real = await rig.client.readFile({ path: "real" });
  assert.deepEqual([real.content, real.lossy], ["     1\tcaf\ufffd\n", false]);
  const elsewhere = await rig.client.readFile({ path: "latin1", lineOffset: 2 });
  assert.equal(elsewhere.lossy, false);
});

test("path rule: absolute paths are used as they are, relative ones are below the work directory, .. is not a jail", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("../outside"), "o");
  await mkdir(rig.at("d"));
  await writeFile(rig.at("d/f"), "f");
  const content = async (path: string) => (await rig.client.readFile({ path })).content;
  assert.equal(await content("../outside"), "     1\to\n");
  assert.equal(await content("./d//x/../f"), "     1\tf\n");
  assert.equal(await content(`${rig.dir}/d/f/`), "     1\tf\n");
});

test("path_raw wins over path and may be any bytes", async () => {
  await using rig = await fileRig();
  await writeFile(raw(rig.dir, "n\xff"), "raw");
  const page = await rig.client.readFile({ path: "nothing", pathRaw: raw(rig.dir, "n\xff") });
  assert.equal(page.content, "     1\traw\n");
});

test("what cannot be read says why at once: missing, directory, FIFO, device, socket, loop, file as directory, NUL, empty", async () => {
  await using rig = await fileRig();
  execFileSync("mkfifo", [rig.at("fifo")]);
  await symlink("loop", rig.at("loop"));
  await writeFile(rig.at("file"), "");
  await using socket = createServer();
  socket.listen(rig.at("sock"));
  const cases = [
    ["missing", "not_found", "open: "],
    [".", "failed_precondition", "is a directory"],
    ["fifo", "failed_precondition", "is a FIFO"],
    ["/dev/zero", "failed_precondition", "is a device"],
    ["sock", "failed_precondition", "is a socket"],
    ["loop", "failed_precondition", "open: "],
    ["file/below", "failed_precondition", "not a directory"],
    ["a\0b", "invalid_argument", "NUL"],
    ["", "invalid_argument", /^path is required$/],
  ] as const;
  for (const [path, code, message] of cases) {
    await assert.rejects(rig.client.readFile({ path }), faultOf(code, message), path);
    const read = async () => {
      for await (const chunk of rig.client.readRaw({ path })) assert.fail(`${path}: ${chunk.data.length}`);
    };
    await assert.rejects(read(), faultOf(code, message), path);
  }
});

test("a FIFO that is refused keeps its writer waiting", async () => {
  await using rig = await fileRig();
  execFileSync("mkfifo", [rig.at("fifo")]);
  const writer = spawn("sh", ["-c", 'echo ready; echo kept > "$0"', rig.at("fifo")], { stdio: "pipe" });
  await once(writer.stdout, "data");
  for (let i = 0; i < 20; i++) {
    await assert.rejects(rig.client.readFile({ path: "fifo" }), faultOf("failed_precondition"));
  }
  // Had anybody opened it, the writer would have gone on into nothing.
  assert.equal(await readFile(rig.at("fifo"), "utf8"), "kept\n");
});

test("files of kernel file systems, which say they are empty, are read", async () => {
  await using rig = await fileRig();
  const page = await rig.client.readFile({ path: "/proc/self/status", nLines: 1 });
  assert.match(page.content, /^ {5}1\tName:/);
  assert.ok(page.totalLines > 10);
});

test("reads that the kernel cuts short change nothing", async (t) => {
  await using rig = await fileRig();
  const text = Buffer.alloc(20_000, "line\n");
  await writeFile(rig.at("text"), text);
  await writeFile(rig.at("binary"), Object.assign(Buffer.from(text), { 8191: 0 }));
  await using some = await open(rig.at("text"));
  const prototype = Object.getPrototypeOf(some) as typeof some;
  const read = Reflect.get(prototype, "read") as (...args: unknown[]) => Promise<unknown>;
  t.mock.method(prototype, "read", async function (this: typeof some, ...args: unknown[]) {
    const [buffer, offset, length, position] = args;
    return await read.call(this, buffer, offset, Math.min(Number(length), 777), position);
  });
  assert.equal((await rig.files.readText("binary")).binary, true);
  assert.equal((await rig.files.readText("text")).totalLines, 4000);
  assert.deepEqual(await bytesOf(await rig.files.readRaw("text")), text);
  const tree = await rig.files.readTree("text");
  assert.ok((await bytesOf(tree.data)).includes(text));
  assert.deepEqual((await tree.summary).skipped, []);
});
