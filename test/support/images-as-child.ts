// A process of its own that imports or pulls, run by either JavaScript runtime as the shipped executable would be.
// Arguments: socket, namespace, `import` and a path, or `pull` (https) or `pull-insecure` and a reference.
import { ContainerdClient } from "../../src/containerd/client.ts";
import { ContainerdImages } from "../../src/containerd/images/image-store.ts";
import { parseImageRef } from "../../src/core/image-ref.ts";
import { Fault } from "../../src/lib/fault.ts";

async function main(): Promise<void> {
  const [socket = "", namespace = "", verb = "", target = ""] = process.argv.slice(2);
  const client = new ContainerdClient({ socket, namespace });
  const host = verb === "import" ? "" : parseImageRef(target).registry;
  const insecure = verb === "pull-insecure";
  const hosts = [{ host, mirrors: [], insecure, username: undefined, password: undefined }];
  const images = new ContainerdImages(client, { registry: { hosts, retryMs: 1 } });
  const onProgress = ({ phase }: { readonly phase: string }) => console.error(phase);
  try {
    const [info] =
      verb === "import"
        ? await images.import(target, { onProgress })
        : [await images.pull(target, { onProgress })];
    console.log(JSON.stringify({ ...info, runtime: process.versions["bun"] === undefined ? "node" : "bun" }));
  } catch (error) {
    const { code, message } = Fault.from(error);
    console.log(JSON.stringify({ code, message }));
  }
  await client[Symbol.asyncDispose]();
}

void main();
