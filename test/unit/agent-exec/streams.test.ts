// Input and output of processes: bytes as they are, in order, complete, and never more than somebody reads.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { collect, execRig, sessionGone, until } from "./rig.ts";

const MIB = 1 << 20;

function written(pid: number): number {
  return Number(/^wchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
}

/** Resolves when a figure has stopped growing. */
async function settled(figure: () => number): Promise<number> {
  for (let last = -1; ; ) {
    const now = figure();
    if (now === last) return now;
    last = now;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

describe("output", { timeout: 60_000 }, () => {
  test("comes in order per stream, both streams apart, before exactly one exit", async () => {
    await using rig = await execRig();
    const { text, stderr, status } = await rig.run({
      command: "i=0; while [ $i -lt 500 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; exit 9",
    });
    const lines = (letter: string) =>
      Array.from({ length: 500 }, (_, index) => `${letter}${index}\n`).join("");
    assert.equal(text, lines("o"));
    assert.equal(stderr.toString(), lines("e"));
    assert.deepEqual(status, { code: 9, signal: undefined, timedOut: false });
  });

  test("that is not UTF-8 arrives byte by byte", async () => {
    await using rig = await execRig();
    const all = Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256));
    assert.deepEqual((await rig.run({ command: "cat" }, all)).stdout, all);
  });

  test("of 64 MiB is the same as what was written", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "head -c 67108864 /dev/urandom | tee copy" });
    const hash = createHash("sha256");
    let size = 0;
    for await (const event of execution.events) {
      if (event.kind !== "stdout") continue;
      hash.update(event.data);
      size += event.data.length;
    }
    assert.equal(size, 64 * MIB);
    const copy = createHash("sha256").update(await readFile(join(rig.dir, "copy")));
    assert.equal(hash.digest("hex"), copy.digest("hex"));
  });

  test("nobody reads stops the process, which goes on when it is read", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: ["head", "-c", String(64 * MIB), "/dev/zero"] });
    const events = execution.events[Symbol.asyncIterator]();
    await events.next();
    const stalled = await settled(() => written(execution.pid));
    assert.ok(stalled <= MIB, `${stalled} bytes for a reader that stopped`);
    let rest = 0;
    for (let next = await events.next(); next.done !== true; next = await events.next()) {
      if (next.value.kind === "stdout") rest += next.value.data.length;
    }
    assert.ok(rest > 63 * MIB);
  });

  test("the process left in its pipe is all there for a reader slower than the drain", async () => {
    await using rig = await execRig({ times: { term: 400, drain: 50 } });
    // Somebody else holds the pipe, so its end never comes.
    await using execution = await rig.start({
      command: "setsid sleep 30 & head -c 60000 /dev/zero; echo last",
    });
    await until(() => readState(execution.pid) === undefined);
    await new Promise((resolve) => setTimeout(resolve, 150));
    const { stdout, status } = await collect(execution);
    assert.equal(stdout.length, 60_005);
    assert.equal(status.code, 0);
  });
});

function readState(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
}

describe("input", { timeout: 60_000 }, () => {
  test("ends when it is ended, and the command's answer to that still comes", async () => {
    await using rig = await execRig();
    assert.equal((await rig.run({ command: "cat; echo done" }, "a\nb")).text, "a\nbdone\n");
    assert.equal((await rig.run({ command: "cat; echo done" })).text, "done\n");
  });

  test("of 32 MiB passes a command that reads slowly at first", async () => {
    await using rig = await execRig();
    const data = Buffer.alloc(32 * MIB, 0x61);
    const { text } = await rig.run({ command: "sleep 0.2; sha256sum" }, data);
    assert.equal(text.slice(0, 64), createHash("sha256").update(data).digest("hex"));
  });

  test("nobody reads makes the writer wait", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "sleep 30" });
    let accepted = 0;
    const writing = (async () => {
      for (;;) {
        await execution.write(Buffer.alloc(64 << 10));
        accepted += 64 << 10;
      }
    })();
    writing.catch(() => undefined);
    assert.ok((await settled(() => accepted)) <= MIB);
    await execution[Symbol.asyncDispose]();
    await assert.rejects(writing, { code: "failed_precondition" });
  });

  test("for a command that closed it is refused, and does not disturb the command", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "exec <&-; echo closed; sleep 0.3; echo end" });
    const reading = collect(execution);
    await assert.rejects(
      async () => {
        for (;;) {
          await execution.write(Buffer.from("x"));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
      { code: "failed_precondition" },
    );
    assert.equal((await reading).text, "closed\nend\n");
  });

  test("is refused after its end", async () => {
    await using rig = await execRig();
    await using execution = await rig.start({ command: "sleep 0.1" });
    await execution.end();
    await execution.end();
    await assert.rejects(execution.write(Buffer.from("x")), { code: "failed_precondition" });
    await collect(execution);
  });
});

describe("many processes", { timeout: 60_000 }, () => {
  test("of 300 in a row, eight at a time, whose input ends at once, every one answers", async () => {
    await using rig = await execRig();
    let next = 0;
    const worker = async () => {
      for (let index = next++; index < 300; index = next++) {
        const { text, status } = await rig.run({ command: `cat; echo ${index}` });
        assert.equal(text, `${index}\n`);
        assert.equal(status.code, 0);
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    assert.equal(rig.processes.running, 0);
  });

  test("leave no descriptor of the agent open", async () => {
    await using rig = await execRig();
    const { readdirSync } = await import("node:fs");
    const open = () => readdirSync("/proc/self/fd").length;
    for (let index = 0; index < 30; index++) await rig.run({ command: "true" });
    const before = open();
    for (let index = 0; index < 60; index++) {
      await rig.run({ command: "true", ...(index % 6 === 0 ? { pty: { cols: 80, rows: 24 } } : {}) });
      await assert.rejects(rig.run({ command: ["nope"] }));
    }
    // Stock of pipes under Node moves within its size.
    await until(() => open() <= before + 24);
    await using execution = await rig.start({ command: "sleep 30" });
    await execution[Symbol.asyncDispose]();
    await sessionGone(execution.pid);
  });
});
