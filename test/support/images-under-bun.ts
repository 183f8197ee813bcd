// Run by Bun from a test: imports an archive or pulls an image as the shipped executable would.
// Arguments: socket, namespace, `import` and a path, or `pull` and a reference of a registry without TLS.
import { ContainerdClient } from "../../src/containerd/client.ts";
import { ContainerdImages } from "../../src/containerd/images/image-store.ts";
import { parseImageRef } from "../../src/core/image-ref.ts";

async function main(): Promise<void> {
  const [socket = "", namespace = "", verb = "", target = ""] = process.argv.slice(2);
  const client = new ContainerdClient({ socket, namespace });
  const host = verb === "pull" ? parseImageRef(target).registry : "";
  const hosts = [{ host, mirrors: [], insecure: true, username: undefined, password: undefined }];
  const images = new ContainerdImages(client, { registry: { hosts, retryMs: 1 } });
  const [info] = verb === "pull" ? [await images.pull(target)] : await images.import(target);
  console.log(JSON.stringify({ ...info, runtime: process.versions["bun"] }));
  await client[Symbol.asyncDispose]();
}

void main();
