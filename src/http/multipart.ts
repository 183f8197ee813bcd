// Streamed multipart uploads: the `path` field, then the `file`, never held in memory.
import { Readable } from "node:stream";
import { Busboy } from "@fastify/busboy";
import { Fault } from "../lib/fault.ts";
import { abortable } from "../lib/signal.ts";
import { bytesOf, type RequestContext, signalOf } from "./context.ts";

/** An upload whose file is being read. Disposing drops what was not read. */
export interface Upload extends AsyncDisposable {
  readonly path: string | undefined;
  readonly data: AsyncIterable<Uint8Array>;
}

/**
 * Reads up to the file part.
 * @throws Fault invalid_argument `file is required`
 */
export async function uploadOf(c: RequestContext): Promise<Upload> {
  const contentType = c.req.header("content-type") ?? "";
  let parser: InstanceType<typeof Busboy>;
  try {
    parser = new Busboy({
      headers: { "content-type": contentType },
      limits: { files: 1, fields: 16, fieldSize: 64 << 10 },
    });
  } catch (error) {
    throw new Fault("invalid_argument", `Cannot read the upload: ${Fault.from(error).message}`, {
      cause: error,
    });
  }
  const source = Readable.from(bytesOf(c));
  let path: string | undefined;
  const { promise, resolve, reject } = Promise.withResolvers<Readable>();
  // A request that breaks off must break the file too, or a part of it would be taken for the whole.
  const broken = (error: unknown) => {
    const fault = Fault.from(error, "The upload broke off");
    reject(fault);
    file?.destroy(fault);
  };
  let file: Readable | undefined;
  parser.on("field", (name, value) => {
    if (name === "path") path = value;
  });
  parser.on("file", (name, stream) => {
    if (name !== "file") {
      stream.resume();
      return;
    }
    file = stream;
    resolve(stream);
  });
  parser.on("error", broken);
  source.on("error", broken);
  parser.on("finish", () => {
    reject(new Fault("invalid_argument", "file is required"));
  });
  source.pipe(parser);
  const data = await abortable(promise, signalOf(c));
  return {
    path,
    data,
    [Symbol.asyncDispose]: () => {
      data.resume();
      source.unpipe(parser);
      source.destroy();
      return Promise.resolve();
    },
  };
}
