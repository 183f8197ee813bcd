// A client of the original: bytes of its own making, its field numbers only, and the answers it got from its own agent.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { type TestAgent, testAgent } from "../../support/agent.ts";

/** Field 1 to 127 as text, bytes or varint, by hand. */
function field(number: number, value: string | Uint8Array | number): Buffer {
  if (typeof value === "number") {
    const bytes = [number << 3];
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
    return Buffer.from([...bytes, Number(rest)]);
  }
  const data = Buffer.from(value);
  const length: number[] = [];
  let rest = data.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, rest]), data]);
}

/** The first message of an Exec. */
function command(
  line: string,
  extra: { dir?: string; env?: string[]; timeout?: number; stdin?: string } = {},
): Buffer {
  return Buffer.concat([
    field(1, line),
    ...(extra.dir === undefined ? [] : [field(2, extra.dir)]),
    ...(extra.env ?? []).map((entry) => field(3, entry)),
    ...(extra.timeout === undefined ? [] : [field(4, extra.timeout)]),
    ...(extra.stdin === undefined ? [] : [field(5, extra.stdin)]),
  ]);
}

interface Output {
  readonly stream: number;
  readonly data: Buffer;
  readonly exitCode: number;
}

/** Reads fields 1 to 3 of an ExecOutput and skips what it does not know, as any original peer. */
function parse(bytes: Buffer): Output {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++] ?? 0;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  let stream = 0;
  let data: Buffer = Buffer.alloc(0);
  let exitCode = 0;
  while (at < bytes.length) {
    const tag = Number(varint());
    if ((tag & 7) === 0) {
      const value = Number(BigInt.asIntN(32, varint()));
      if (tag >> 3 === 1) stream = value;
      if (tag >> 3 === 3) exitCode = value;
    } else {
      assert.equal(tag & 7, 2, "an unknown wire type");
      const length = Number(varint());
      if (tag >> 3 === 2) data = bytes.subarray(at, at + length);
      at += length;
    }
  }
  return { stream, data, exitCode };
}

interface Answer {
  readonly out: string;
  readonly err: string;
  /** EXIT messages; there must be one, last. */
  readonly exits: readonly number[];
  readonly lastIsExit: boolean;
  readonly status: grpc.StatusObject;
}

/** Sends the messages, half-closes unless told otherwise, and reads to the status. */
async function exec(agent: TestAgent, messages: readonly Buffer[], halfClose = true): Promise<Answer> {
  const client = new grpc.Client(agent.target, grpc.credentials.createInsecure());
  try {
    const call = client.makeBidiStreamRequest(
      "/mcpcontainer.ContainerService/Exec",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      new grpc.Metadata(),
      {},
    );
    const outputs: Output[] = [];
    call.on("data", (bytes: Buffer) => outputs.push(parse(bytes)));
    call.on("error", () => undefined);
    for (const message of messages) call.write(message);
    if (halfClose) call.end();
    const { promise, resolve } = Promise.withResolvers<grpc.StatusObject>();
    call.on("status", resolve);
    const status = await promise;
    const text = (stream: number) =>
      Buffer.concat(
        outputs.filter((output) => output.stream === stream).map((output) => output.data),
      ).toString();
    return {
      out: text(0),
      err: text(1),
      exits: outputs.filter((output) => output.stream === 2).map((output) => output.exitCode),
      lastIsExit: outputs.at(-1)?.stream === 2,
      status,
    };
  } finally {
    client.close();
  }
}

describe("Exec for a client of the original", { timeout: 60_000 }, () => {
  test("runs a shell line in the work directory and ends with one EXIT and status OK", async () => {
    await using agent = await testAgent();
    const answer = await exec(agent, [command("pwd; echo err >&2; exit 3")]);
    assert.equal(answer.out, `${agent.workDir}\n`);
    assert.equal(answer.err, "err\n");
    assert.deepEqual([answer.exits, answer.lastIsExit, answer.status.code], [[3], true, grpc.status.OK]);
  });

  test("refuses a stream without a message and one without a command, in the original's words", async () => {
    await using agent = await testAgent();
    const empty = await exec(agent, []);
    assert.deepEqual([empty.status.code, empty.status.details], [3, "failed to receive exec config"]);
    const blank = await exec(agent, [Buffer.alloc(0)]);
    assert.deepEqual([blank.status.code, blank.status.details], [3, "command is required"]);
  });

  test("adds its environment to the agent's", async () => {
    await using agent = await testAgent({ commandEnv: { BASE: "1", BOTH: "base" } });
    const answer = await exec(agent, [
      command('echo "$BASE $BOTH $MINE"', { env: ["BOTH=mine", "MINE=a=b c"] }),
    ]);
    assert.equal(answer.out, "1 mine a=b c\n");
  });

  test("feeds stdin from every message, the first included, and ends it with the half-close", async () => {
    await using agent = await testAgent();
    const answer = await exec(agent, [
      command("cat; echo end", { stdin: "a" }),
      field(5, "b"),
      field(5, "c\n"),
    ]);
    assert.equal(answer.out, "abc\nend\n");
  });

  test("answers a client that never half-closes", async () => {
    await using agent = await testAgent();
    const answer = await exec(agent, [command("echo here")], false);
    assert.deepEqual([answer.out, answer.exits], ["here\n", [0]]);
  });

  test("ends the command after its seconds with exit code -1, children and all", async () => {
    await using agent = await testAgent();
    const answer = await exec(agent, [command("sleep 30 & echo up; wait", { timeout: 1 })]);
    assert.deepEqual([answer.out, answer.exits, answer.status.code], ["up\n", [-1], grpc.status.OK]);
  });

  test("tells -1 for a command that a signal ended", async () => {
    await using agent = await testAgent();
    assert.deepEqual((await exec(agent, [command("kill -9 $$")])).exits, [-1]);
  });

  test("takes a relative directory below the work directory and names a missing one", async () => {
    await using agent = await testAgent();
    await exec(agent, [command("mkdir -p sub/dir")]);
    assert.equal((await exec(agent, [command("pwd", { dir: "sub/dir" })])).out, `${agent.workDir}/sub/dir\n`);
    const missing = await exec(agent, [command("pwd", { dir: "nope" })]);
    assert.equal(missing.status.code, grpc.status.NOT_FOUND);
    assert.match(missing.status.details, /nope/);
    const file = await exec(agent, [command("pwd", { dir: "/etc/passwd" })]);
    assert.equal(file.status.code, grpc.status.FAILED_PRECONDITION);
  });

  test("finds no reflection service", async () => {
    await using agent = await testAgent();
    const client = new grpc.Client(agent.target, grpc.credentials.createInsecure());
    const { promise, resolve } = Promise.withResolvers<number | undefined>();
    client.makeUnaryRequest(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.alloc(0),
      (error) => {
        resolve(error?.code);
      },
    );
    assert.equal(await promise, grpc.status.UNIMPLEMENTED);
    client.close();
  });

  test("writes and reads a file by the original's fields", async () => {
    await using agent = await testAgent();
    const client = new grpc.Client(agent.target, grpc.credentials.createInsecure());
    const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>();
    client.makeUnaryRequest(
      "/mcpcontainer.ContainerService/WriteFile",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.concat([field(1, "notes.txt"), field(2, "line\n")]),
      (error, value) => {
        if (error === null) resolve(value);
        else reject(error);
      },
    );
    await promise;
    assert.equal(await readFile(join(agent.workDir, "notes.txt"), "utf8"), "line\n");
    client.close();
  });
});
