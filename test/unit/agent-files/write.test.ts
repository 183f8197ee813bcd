import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { test } from "node:test";
import { sweepTemps } from "../../../src/agent/files/sweep-temps.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { bytesOf, type FileRig, faultOf, fileRig, raw } from "../../support/file-rig.ts";

async function* chunks(...parts: (string | Error)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    if (part instanceof Error) throw part;
    await Promise.resolve();
    yield Buffer.from(part);
  }
}

async function noTemps(rig: FileRig): Promise<void> {
  const names = await readdir(rig.dir, { recursive: true });
  assert.deepEqual(
    names.filter((name) => name.includes(".memoh-tmp-")),
    [],
  );
}

test("a new file gets 0644 from WriteFile, 0666 less the umask from WriteRaw, and parents of 0755", async () => {
  await using rig = await fileRig();
  const umask = process.umask(0o007);
  try {
    await rig.client.writeFile({ path: "a/b/c.txt", content: Buffer.from("hi") });
    await rig.client.writeRaw([{ path: "d/e.bin", data: Buffer.from("raw") }]);
  } finally {
    process.umask(umask);
  }
  assert.equal(await readFile(rig.at("a/b/c.txt"), "utf8"), "hi");
  assert.equal(await readFile(rig.at("d/e.bin"), "utf8"), "raw");
  const mode = async (name: string) => ((await stat(rig.at(name))).mode & 0o7777).toString(8);
  assert.deepEqual(
    [await mode("a"), await mode("a/b"), await mode("a/b/c.txt"), await mode("d/e.bin")],
    ["750", "750", "640", "660"],
  );
});

test("an existing file keeps mode, owner and extended attributes, and a reader of the old one is not disturbed", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("run.sh"), "old content that is longer");
  await chown(rig.at("run.sh"), 1234, 5678);
  await chmod(rig.at("run.sh"), 0o4751);
  execFileSync("setfattr", ["-n", "user.note", "-v", "kept", rig.at("run.sh")]);
  const before = await stat(rig.at("run.sh"));
  for (const content of ["first", ""]) {
    await using reader = await open(rig.at("run.sh"));
    const old = await readFile(rig.at("run.sh"), "utf8");
    await rig.client.writeFile({ path: "run.sh", content: Buffer.from(content) });
    assert.equal(await reader.readFile("utf8"), old);
    const after = await stat(rig.at("run.sh"));
    assert.equal(await readFile(rig.at("run.sh"), "utf8"), content);
    assert.deepEqual([after.mode, after.uid, after.gid], [before.mode, 1234, 5678]);
    const show = ["--only-values", "--absolute-names", "-n", "user.note", rig.at("run.sh")];
    assert.equal(execFileSync("getfattr", show).toString(), "kept");
  }
  await noTemps(rig);
});

test("a write follows links: the link stays, its target changes, a dangling one makes its target", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("real/sub"), { recursive: true });
  await writeFile(rig.at("real/file"), "old");
  await symlink("real/file", rig.at("link"));
  await symlink("link", rig.at("link2"));
  await rig.client.writeRaw([{ path: "link2", data: Buffer.from("new") }]);
  assert.equal(await readlink(rig.at("link2")), "link");
  assert.equal(await readFile(rig.at("real/file"), "utf8"), "new");
  await symlink("real/made", rig.at("dangling"));
  await rig.client.writeFile({ path: "dangling", content: Buffer.from("made") });
  assert.equal(await readlink(rig.at("dangling")), "real/made");
  assert.equal(await readFile(rig.at("real/made"), "utf8"), "made");
  // ".." after a link to a directory is the parent of where the link leads, as the kernel has it.
  await symlink("real/sub", rig.at("dirlink"));
  await symlink("dirlink/../up", rig.at("uplink"));
  await rig.client.writeFile({ path: "uplink", content: Buffer.from("up") });
  assert.equal(await readFile(rig.at("real/up"), "utf8"), "up");
  await symlink("no/such/dir/file", rig.at("nowhere"));
  await assert.rejects(rig.client.writeFile({ path: "nowhere" }), faultOf("not_found", "write: "));
  await symlink("me", rig.at("me"));
  await assert.rejects(
    rig.client.writeFile({ path: "me" }),
    faultOf("failed_precondition", "symbolic links"),
  );
});

test("a file with two names is written in place, so that both show the new content", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("one"), "a longer old content");
  await link(rig.at("one"), rig.at("two"));
  const { ino } = await stat(rig.at("one"));
  await rig.client.writeFile({ path: "two", content: Buffer.from("short") });
  assert.equal(await readFile(rig.at("one"), "utf8"), "short");
  assert.deepEqual([(await stat(rig.at("two"))).ino, (await stat(rig.at("one"))).nlink], [ino, 2]);
  const broken = rig.files.writeRaw(rig.at("one"), chunks("part", new Fault("aborted", "broken")));
  await assert.rejects(broken, faultOf("aborted", "broken"));
  assert.equal(await readFile(rig.at("two"), "utf8"), "short");
  await noTemps(rig);
});

test("a file that is a mount point is written in place", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("under"), "under");
  await writeFile(rig.at("over"), "over");
  execFileSync("mount", ["--bind", rig.at("over"), rig.at("under")]);
  try {
    await rig.client.writeFile({ path: "under", content: Buffer.from("written") });
    assert.equal(await readFile(rig.at("over"), "utf8"), "written");
  } finally {
    execFileSync("umount", [rig.at("under")]);
  }
  assert.equal(await readFile(rig.at("under"), "utf8"), "under");
  await noTemps(rig);
});

test("files of kernel file systems can be written", async () => {
  await using rig = await fileRig();
  const path = `/proc/${process.pid}/oom_score_adj`;
  const before = await readFile(path, "utf8");
  await rig.client.writeFile({ path, content: Buffer.from("7") });
  assert.equal(await readFile(path, "utf8"), "7\n");
  await rig.client.writeFile({ path, content: Buffer.from(before) });
});

test("a WriteRaw without chunks makes nothing, an empty first chunk makes an empty file, later paths do not count", async () => {
  await using rig = await fileRig();
  assert.equal((await rig.client.writeRaw([])).bytesWritten, 0n);
  assert.deepEqual(await readdir(rig.dir), []);
  assert.equal((await rig.client.writeRaw([{ path: "empty" }])).bytesWritten, 0n);
  assert.equal((await stat(rig.at("empty"))).size, 0);
  const two = [
    { path: "x", data: Buffer.from("1") },
    { path: "y", data: Buffer.from("2") },
  ];
  assert.equal((await rig.client.writeRaw(two)).bytesWritten, 2n);
  assert.deepEqual((await readdir(rig.dir)).sort(), ["empty", "x"]);
  await assert.rejects(
    rig.client.writeRaw([{ data: Buffer.from("1") }]),
    faultOf("invalid_argument", /^first chunk must include path$/),
  );
});

test("a stream that aborts, breaks or is cancelled leaves the old file and nothing else", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), "old");
  const aborted = [{ path: "f", data: Buffer.from("new") }, { abort: true }];
  await assert.rejects(rig.client.writeRaw(aborted), faultOf("aborted"));
  await assert.rejects(rig.client.writeRaw([{ path: "g", abort: true }]), faultOf("aborted"));
  async function* breaking() {
    yield { path: "f", data: Buffer.alloc(1 << 20) };
    await untilTemp(rig);
    throw new Error("sender died");
  }
  await assert.rejects(rig.client.writeRaw(breaking()));
  const gone = new AbortController();
  async function* cancelled() {
    yield { path: "f", data: Buffer.alloc(1 << 20) };
    await untilTemp(rig);
    gone.abort();
    yield { data: Buffer.alloc(1) };
  }
  await assert.rejects(rig.client.writeRaw(cancelled(), { signal: gone.signal }), faultOf("cancelled"));
  assert.equal(await readFile(rig.at("f"), "utf8"), "old");
  while ((await readdir(rig.dir)).length > 1) await new Promise((done) => setImmediate(done));
  assert.deepEqual(await readdir(rig.dir), ["f"]);
});

async function untilTemp(rig: FileRig): Promise<void> {
  while (!(await readdir(rig.dir)).some((name) => name.startsWith(".memoh-tmp-"))) {
    await new Promise((done) => setImmediate(done));
  }
}

test("a signal ends a write whose source never comes back", async () => {
  await using rig = await fileRig();
  const stop = new AbortController();
  async function* stuck() {
    yield Buffer.from("x");
    setImmediate(() => {
      stop.abort();
    });
    await new Promise(() => undefined);
  }
  await assert.rejects(rig.files.writeRaw("f", stuck(), { signal: stop.signal }), faultOf("cancelled"));
  assert.deepEqual(await readdir(rig.dir), []);
});

test("of concurrent writers of one file the last wins and content is never mixed, in place too", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("two"), "");
  await link(rig.at("two"), rig.at("names"));
  for (const path of ["one", "two"]) {
    const write = async (letter: string) => {
      const part = letter.repeat(200_000);
      await rig.files.writeRaw(path, chunks(part, part, part));
    };
    await Promise.all("abcdefgh".split("").map(write));
    const content = await readFile(rig.at(path), "utf8");
    assert.equal(content, content.charAt(0).repeat(600_000), path);
  }
  await noTemps(rig);
});

test("what cannot be written says why and changes nothing", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("d"));
  await writeFile(rig.at("file"), "");
  execFileSync("mkfifo", [rig.at("fifo")]);
  const cases = [
    ["d", "failed_precondition", "is a directory"],
    ["file/below", "failed_precondition", "mkdir: "],
    ["fifo", "failed_precondition", "is a FIFO"],
    ["/dev/null", "failed_precondition", "is a device"],
    ["a\0b", "invalid_argument", "NUL"],
    ["/proc/memoh", "not_found", ""],
    [`d/${"n".repeat(300)}`, "invalid_argument", "file name too long"],
  ] as const;
  for (const [path, code, message] of cases) {
    await assert.rejects(rig.client.writeFile({ path }), faultOf(code, message), path);
    await assert.rejects(rig.client.writeRaw([{ path }]), faultOf(code, message), path);
  }
  await assert.rejects(rig.client.writeFile({ path: "" }), faultOf("invalid_argument", /^path is required$/));
  assert.deepEqual(await readdir(rig.at("d")), []);
});

test("a full disk is resource_exhausted, keeps the old content and leaves no temporary file", async () => {
  await using rig = await fileRig();
  await mkdir(rig.at("small"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", rig.at("small")]);
  try {
    await rig.client.writeFile({ path: "small/f", content: Buffer.from("old") });
    await link(rig.at("small/f"), rig.at("small/g"));
    const big = Buffer.alloc(2 << 20, 1);
    for (const path of ["small/f", "small/new"]) {
      const error = await rig.client.writeFile({ path, content: big }).catch((caught: unknown) => caught);
      assert.ok(Fault.is(error, "resource_exhausted"), String(error));
      assert.match(error.message, /^write: .*no space left on device/);
      assert.match(error.hint ?? "", /Free some space/);
      await assert.rejects(rig.client.writeRaw([{ path, data: big }]), faultOf("resource_exhausted"));
    }
    // In place: 700 KiB can be staged, but not staged and written.
    await assert.rejects(
      rig.client.writeFile({ path: "small/g", content: big.subarray(0, 700 << 10) }),
      faultOf("resource_exhausted"),
    );
    assert.equal(await readFile(rig.at("small/f"), "utf8"), "old");
    assert.deepEqual((await readdir(rig.at("small"))).sort(), ["f", "g"]);
  } finally {
    execFileSync("umount", [rig.at("small")]);
  }
});

test("names of any bytes can be written, renamed, read and deleted", async () => {
  await using rig = await fileRig();
  const name = raw(rig.dir, "d\xfe/f\xff");
  await rig.client.writeFile({ path: "ignored", pathRaw: name, content: Buffer.from("1") });
  await rig.client.writeRaw([{ path: "ignored", pathRaw: name, data: Buffer.from("22") }]);
  assert.equal((await rig.client.stat({ pathRaw: name })).entry?.size, 2n);
  const moved = raw(rig.dir, "e\xfd/g\xfc");
  await rig.client.rename({ oldPathRaw: name, newPathRaw: moved });
  const data = await bytesOf(await rig.files.readRaw(moved));
  assert.equal(data.toString(), "22");
  await rig.client.deleteFile({ path: "ignored", pathRaw: moved });
  await assert.rejects(lstat(moved), { code: "ENOENT" });
});

test("the new content is synced before it gets the name, and the name after", async (t) => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), "old");
  const seen: string[] = [];
  await using some = await open(rig.at("f"));
  const prototype = Object.getPrototypeOf(some) as typeof some;
  const sync = Reflect.get(prototype, "sync");
  t.mock.method(prototype, "sync", async function (this: typeof some) {
    const kind = (await this.stat()).isDirectory() ? "directory" : "file";
    seen.push(`${kind} while f is ${await readFile(rig.at("f"), "utf8")}`);
    await sync.call(this);
  });
  await rig.files.writeFile("f", Buffer.from("new"));
  assert.deepEqual(seen, ["file while f is old", "directory while f is new"]);
});

test("a writer that is killed leaves the old file, and what it left is swept away", async () => {
  await using rig = await fileRig();
  await writeFile(rig.at("f"), "old");
  const module = new URL("../../../src/agent/files/local-files.ts", import.meta.url).href;
  const script = `
    const { LocalFiles } = await import(${JSON.stringify(module)});
    const files = new LocalFiles({ workDir: ${JSON.stringify(rig.dir)} });
    async function* source() {
      yield Buffer.alloc(1 << 20);
      process.stdout.write("writing");
      await new Promise((done) => setTimeout(done, 60_000));
    }
    await files.writeRaw("f", source());
  `;
  const writer = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "pipe" });
  await once(writer.stdout, "data");
  writer.kill("SIGKILL");
  await once(writer, "exit");
  assert.equal((await readdir(rig.dir)).length, 2);
  assert.equal(await sweepTemps(rig.dir, { before: Date.now() + 1000 }), 1);
  assert.deepEqual(await readdir(rig.dir), ["f"]);
  assert.equal(await readFile(rig.at("f"), "utf8"), "old");
});
