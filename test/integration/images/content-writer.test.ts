// The writer of blobs: stalls, locks and races, on a real containerd.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import type { ContainerdClient, ContainerdServices } from "../../../src/containerd/client.ts";
import { ContentWriter } from "../../../src/containerd/images/content-writer.ts";
import { Lease } from "../../../src/containerd/lease.ts";
import { WriteAction } from "../../../src/gen/proto/containerd/content_pb.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Descriptor } from "../../../src/oci/manifest.ts";
import { startContainerd, type TestContainerd } from "../../support/containerd.ts";
import { ingestsOf } from "../../support/containerd-state.ts";

const cleanup = new AsyncDisposableStack();
let daemon: TestContainerd;
let client: ContainerdClient;

before(async () => {
  daemon = cleanup.use(await startContainerd());
  client = cleanup.use(daemon.client());
});

after(async () => {
  await cleanup.disposeAsync();
});

function blob(size: number): { bytes: Buffer; descriptor: Descriptor } {
  const bytes = randomBytes(size);
  return { bytes, descriptor: { mediaType: "application/octet-stream", digest: digestOf(bytes), size } };
}

async function open(
  descriptor: Descriptor,
  options: {
    readonly content?: ContainerdServices["content"];
    readonly stallMs?: number;
    readonly commitMs?: number;
  } = {},
): Promise<ContentWriter> {
  const writer = await ContentWriter.open(options.content ?? client.content, descriptor, {
    labels: { "test.label": "set" },
    stallMs: options.stallMs,
    commitMs: options.commitMs,
  });
  assert.ok(writer);
  return writer;
}

async function writeAll(writer: ContentWriter, bytes: Buffer): Promise<void> {
  for (let at = writer.offset; at < bytes.length; at += 100_000)
    await writer.write(bytes.subarray(at, at + 100_000));
  await writer.commit();
}

async function stored(digest: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const { data } of client.content.read({ digest })) chunks.push(data);
  return Buffer.concat(chunks);
}

/** containerd's content service, of whose streams the first `streams` swallow the answer to their n-th message. */
function swallowing(streams: number, nth: number): ContainerdServices["content"] {
  let opened = 0;
  return {
    ...client.content,
    write: (options) => {
      const stream = client.content.write(options);
      if (++opened > streams) return stream;
      const { responses } = stream;
      return {
        ...stream,
        responses: {
          ...responses,
          [Symbol.asyncIterator]: () => {
            const iterator = responses[Symbol.asyncIterator]();
            let answers = 0;
            const next = async () => {
              const answer = await iterator.next();
              if (++answers >= nth) await new Promise(() => undefined);
              return answer;
            };
            return { next };
          },
        },
      };
    },
  };
}

void test("a blob is written with its labels", async () => {
  const { bytes, descriptor } = blob(3_000_000);
  await using writer = await open(descriptor);
  await writeAll(writer, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
  const { info } = await client.content.info({ digest: descriptor.digest });
  assert.equal(info?.labels["test.label"], "set");
});

void test("a stream that stalls is given up and gone on with, without a byte lost or doubled", async () => {
  const { bytes, descriptor } = blob(5_000_000);
  await using writer = await open(descriptor, { content: swallowing(2, 3), stallMs: 300 });
  await writeAll(writer, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
});

void test("a commit whose answer is lost counts, because the blob is there", async () => {
  const { bytes, descriptor } = blob(1000);
  await using writer = await open(descriptor, { content: swallowing(1, 3), commitMs: 300 });
  await writeAll(writer, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
});

void test("a stream that stalls again and again is given up for good", async () => {
  const { bytes, descriptor } = blob(2_000_000);
  await using writer = await open(descriptor);
  await writer.abort();
  const opening = ContentWriter.open(swallowing(100, 1), descriptor, { labels: {}, stallMs: 50 });
  await assert.rejects(opening, (error) => Fault.is(error, "deadline_exceeded"));
  await using second = await open(descriptor);
  await writeAll(second, bytes);
});

void test("what was written is there for the next writer", async () => {
  const { bytes, descriptor } = blob(4_000_000);
  {
    await using first = await open(descriptor);
    await first.write(bytes.subarray(0, 2_500_000));
  }
  await using second = await open(descriptor);
  assert.ok(second.offset > 0);
  await writeAll(second, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
});

void test("a blob that is there is not opened", async () => {
  const { bytes, descriptor } = blob(1000);
  await using writer = await open(descriptor);
  await writeAll(writer, bytes);
  assert.equal(await ContentWriter.open(client.content, descriptor, { labels: {} }), undefined);
});

void test("a blob that is there comes under the lease of who wants it", async () => {
  const { bytes, descriptor } = blob(1000);
  await using writer = await open(descriptor);
  await writeAll(writer, bytes);
  {
    await using lease = await Lease.create(client, "test");
    assert.equal(await ContentWriter.open(lease.services.content, descriptor, { labels: {} }), undefined);
    const { resources } = await client.leases.listResources({ id: lease.id });
    assert.deepEqual(
      resources.map(({ id }) => id),
      [descriptor.digest],
    );
  }
});

void test("a writer waits for another one of the same blob", async () => {
  const { bytes, descriptor } = blob(2_000_000);
  const first = await open(descriptor);
  await first.write(bytes.subarray(0, 1_500_000));
  const waiting = open(descriptor);
  await sleep(100);
  await first[Symbol.asyncDispose]();
  await using second = await waiting;
  assert.ok(second.offset >= 1_000_000);
  await writeAll(second, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
});

void test("bytes without the digest are not taken, and can be replaced by the right ones", async () => {
  const { bytes, descriptor } = blob(100_000);
  await using writer = await open(descriptor);
  await writer.write(Buffer.alloc(100_000, 1));
  await assert.rejects(writer.commit(), (error) => Fault.is(error, "data_loss"));
  assert.equal(await ingestsOf(client).then((refs) => refs.length), 1);
  await writer.reset();
  assert.equal(writer.offset, 0);
  await writeAll(writer, bytes);
  assert.ok((await stored(descriptor.digest)).equals(bytes));
});

void test("too few bytes are not taken", async () => {
  const { bytes, descriptor } = blob(100_000);
  await using writer = await open(descriptor);
  await writer.write(bytes.subarray(0, 50_000));
  await assert.rejects(writer.commit(), (error) => Fault.is(error, "data_loss"));
  await writer.abort();
  assert.deepEqual(await ingestsOf(client), []);
});

void test("an upload longer than its blob is begun anew", async () => {
  const { bytes, descriptor } = blob(100_000);
  const ref = `memoh-${descriptor.digest}`;
  const stream = client.content.write({});
  const replies = stream.responses[Symbol.asyncIterator]();
  await stream.write({ action: WriteAction.WRITE, ref, data: randomBytes(150_000) });
  await replies.next();
  await stream[Symbol.asyncDispose]();
  await using writer = await open(descriptor);
  assert.equal(writer.offset, 0);
  await writeAll(writer, bytes);
});

void test("a cancelled write ends with the caller's reason", async () => {
  const { bytes, descriptor } = blob(4_000_000);
  const controller = new AbortController();
  await using writer = await ContentWriter.open(swallowing(1, 2), descriptor, {
    labels: {},
    signal: controller.signal,
  });
  assert.ok(writer);
  const writing = writeAll(writer, bytes);
  setTimeout(() => {
    controller.abort(new Fault("cancelled", "enough"));
  }, 50);
  await assert.rejects(writing, (error) => Fault.is(error, "cancelled") && error.message === "enough");
});
