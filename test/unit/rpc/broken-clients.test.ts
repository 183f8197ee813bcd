// Clients that break the protocol, or go away in the middle: the server sheds them and serves the others.
import assert from "node:assert/strict";
import { once } from "node:events";
import * as http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { describe, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { type Rig, rpcRig, until } from "./rig.ts";

const HEADERS = {
  ":method": "POST",
  "content-type": "application/grpc",
  te: "trailers",
};

interface Answer {
  readonly status: number;
  readonly grpcStatus: string | undefined;
  readonly message: string | undefined;
}

/** One raw HTTP/2 request with these body bytes. */
async function raw(
  rig: Rig,
  path: string,
  body: Uint8Array,
  headers: http2.OutgoingHttpHeaders = HEADERS,
): Promise<Answer> {
  const session = http2.connect("http://localhost", { createConnection: () => socketTo(rig) });
  try {
    const stream = session.request({ ...headers, ":path": path });
    let first: http2.IncomingHttpHeaders = {};
    let last: http2.IncomingHttpHeaders = {};
    stream.on("response", (given) => {
      first = given;
    });
    stream.on("trailers", (given) => {
      last = given as http2.IncomingHttpHeaders;
    });
    stream.on("error", () => undefined);
    stream.resume();
    stream.end(body);
    await once(stream, "close");
    const all = { ...first, ...last };
    const text = (name: string) => (typeof all[name] === "string" ? all[name] : undefined);
    return {
      status: Number(first[":status"]),
      grpcStatus: text("grpc-status"),
      message: text("grpc-message"),
    };
  } finally {
    session.destroy();
  }
}

function socketTo(rig: Rig): Socket {
  return connect(rig.target.slice("unix:".length));
}

/** A gRPC frame: flag, length, payload. */
function frame(payload: Uint8Array, length = payload.length, flag = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flag, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, payload]);
}

const SERVICE = "/mcpcontainer.ContainerService";
/** Field 1, length-delimited, 100 bytes announced, none there. */
const GARBAGE = Buffer.from([0x0a, 0x64]);

function quietRig(): Promise<Rig> {
  return rpcRig({
    stat: (request) => Promise.resolve({ entry: { path: request.path } }),
    writeRaw: async (requests) => {
      for await (const _ of requests);
      return {};
    },
    exec: async function* (requests) {
      for await (const _ of requests) yield {};
    },
  });
}

describe("a server", { timeout: 30_000 }, () => {
  test("answers bytes that are no message with INTERNAL, in every kind of call, and stays", async () => {
    await using rig = await quietRig();
    for (const rpc of ["Stat", "WriteRaw", "Exec"]) {
      const answer = await raw(rig, `${SERVICE}/${rpc}`, frame(GARBAGE));
      assert.equal(answer.grpcStatus, "13", `${rpc}: ${JSON.stringify(answer)}`);
    }
    assert.equal((await rig.client.stat({ path: "x" })).entry?.path, "x");
  });

  test("answers an unknown rpc and an unknown service with UNIMPLEMENTED", async () => {
    await using rig = await quietRig();
    assert.equal((await raw(rig, `${SERVICE}/Nope`, frame(Buffer.alloc(0)))).grpcStatus, "12");
    assert.equal(
      (await raw(rig, "/grpc.reflection.v1.ServerReflection/X", frame(Buffer.alloc(0)))).grpcStatus,
      "12",
    );
  });

  test("answers what is not gRPC with 415", async () => {
    await using rig = await quietRig();
    const answer = await raw(rig, `${SERVICE}/Stat`, Buffer.from("{}"), {
      ...HEADERS,
      "content-type": "text/json",
    });
    assert.equal(answer.status, 415);
  });

  test("refuses a frame that announces more than the limit before it has arrived", async () => {
    await using rig = await quietRig();
    const answer = await raw(rig, `${SERVICE}/Stat`, frame(Buffer.alloc(10), 0x7fffffff));
    assert.equal(answer.grpcStatus, "8", JSON.stringify(answer));
  });

  test("answers a unary call without a message, or with half of one, with an error", async () => {
    await using rig = await quietRig();
    for (const body of [Buffer.alloc(0), frame(Buffer.alloc(10), 20)]) {
      const answer = await raw(rig, `${SERVICE}/Stat`, body);
      assert.ok(answer.grpcStatus !== undefined && answer.grpcStatus !== "0", JSON.stringify(answer));
    }
    await rig.client.stat({});
  });

  test("survives plain text, half a preface and a silent connection", async () => {
    await using rig = await quietRig();
    const silent = socketTo(rig);
    for (const text of ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n", "\0\0\0\0\0\0"]) {
      const socket = socketTo(rig);
      socket.on("error", () => undefined);
      socket.end(text);
      socket.resume();
      await once(socket, "close");
    }
    await rig.client.stat({});
    silent.destroy();
  });

  test("aborts the handler when the connection breaks in the middle of a stream", async () => {
    const seen: unknown[] = [];
    let began = 0;
    await using rig = await rpcRig({
      exec: async function* (requests, { signal }) {
        signal.addEventListener("abort", () => seen.push(signal.reason));
        began++;
        for await (const _ of requests) yield {};
      },
      readRaw: async function* (_, { signal }) {
        signal.addEventListener("abort", () => seen.push(signal.reason));
        began++;
        yield {};
        await new Promise(() => undefined);
      },
      stat: async (_, { signal }) => {
        signal.addEventListener("abort", () => seen.push(signal.reason));
        began++;
        await new Promise(() => undefined);
        return {};
      },
    });
    const socket = socketTo(rig);
    const session = http2.connect("http://localhost", { createConnection: () => socket });
    session.on("error", () => undefined);
    for (const rpc of ["Exec", "ReadRaw", "Stat"]) {
      const stream = session.request({ ...HEADERS, ":path": `${SERVICE}/${rpc}` });
      stream.on("error", () => undefined);
      stream.write(frame(Buffer.alloc(0)));
      if (rpc !== "Exec") stream.end();
    }
    await until(() => began === 3);
    socket.destroy();
    await until(() => seen.length === 3);
    assert.ok(
      seen.every((reason) => Fault.is(reason, "cancelled")),
      String(seen),
    );
  });
});
