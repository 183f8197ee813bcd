// The host's API for benches: keep-alive requests, so that only the work is measured.
import { Agent, request } from "node:http";

const agent = new Agent({ keepAlive: true, maxSockets: 8 });

/** A JSON request over the host's unix socket. */
export async function api(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const payload = body === undefined ? undefined : JSON.stringify(body);
  request(
    {
      socketPath,
      agent,
      method,
      path,
      headers:
        payload === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) },
    },
    (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        if ((response.statusCode ?? 500) >= 400) reject(new Error(`${method} ${path}: ${text}`));
        else resolve(text === "" ? undefined : JSON.parse(text));
      });
    },
  )
    .on("error", reject)
    .end(payload);
  return await promise;
}

/** Bytes of a download, thrown away. @returns how many */
export async function download(socketPath: string, path: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  request({ socketPath, agent, path }, (response) => {
    let size = 0;
    response.on("data", (chunk: Buffer) => {
      size += chunk.length;
    });
    response.on("end", () => {
      resolve(size);
    });
    response.on("error", reject);
  })
    .on("error", reject)
    .end();
  return await promise;
}

/** Uploads `size` bytes as they are asked for. */
export async function upload(socketPath: string, path: string, size: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const outgoing = request(
    { socketPath, agent, method: "POST", path, headers: { "content-type": "application/octet-stream" } },
    (response) => {
      response.resume();
      response.on("end", () => {
        if ((response.statusCode ?? 500) < 400) resolve();
        else reject(new Error(`upload ended with ${response.statusCode ?? 0}`));
      });
    },
  ).on("error", reject);
  const chunk = Buffer.alloc(256 << 10, 7);
  for (let sent = 0; sent < size; sent += chunk.length) {
    if (!outgoing.write(chunk)) await new Promise((drained) => outgoing.once("drain", drained));
  }
  outgoing.end();
  await promise;
}
