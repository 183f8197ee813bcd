// The contract of a workspace, kept inside a real container: real runc, real network, mutual TLS.
import { createReadStream } from "node:fs";
import type { Workspace } from "../../src/core/workspace.ts";
import { mustRun } from "../../src/lib/command.ts";
import { workspaceSuite } from "../contract/workspace-suite.ts";
import { botClient } from "../support/bot-client.ts";
import { startHost } from "../support/host.ts";

/** What the suite asks of its tools and busybox's do not have. Its shell is one: it prefers its own applets. */
const TOOLS = { touch: "touch", find: "find", stat: "stat", ls: "ls", dash: "sh" };

/** Gives a busybox workspace this machine's own tools, with their loader and libraries. */
async function bringTools(workspace: Workspace): Promise<void> {
  const { stdout } = await mustRun(["ldd", ...Object.keys(TOOLS).map((tool) => `/usr/bin/${tool}`)]);
  const libraries = [...new Set([...stdout.matchAll(/(\/\S+\.so\S*)/g)].map((match) => match[1] ?? ""))];
  for (const [source, target] of [
    ...libraries.map((path) => [path, path] as const),
    ...Object.entries(TOOLS).map(([tool, name]) => [`/usr/bin/${tool}`, `/bin/${name}`] as const),
  ]) {
    // A link to busybox would be followed, and busybox replaced.
    await workspace.remove(target);
    await workspace.writeRaw(target, createReadStream(source));
    await using chmod = await workspace.exec({ command: ["/bin/busybox", "chmod", "755", target] });
    for await (const event of chmod.events) {
      if (event.kind === "exit" && event.status.code !== 0) throw new Error(`chmod ${target} failed`);
    }
  }
}

workspaceSuite("workspace inside a container", async () => {
  await using stack = new AsyncDisposableStack();
  const host = stack.use(await startHost());
  // Half of the memory is /dev/shm, which the suite fills.
  const bot = await host.json<{ id: string; ip: string }>(["bot", "create", "contract", "--memory", "512M"]);
  const client = stack.use(await botClient(host, bot));
  await bringTools(client.workspace);
  await client.workspace.mkdir("/data/contract");
  const owned = stack.move();
  return {
    workspace: client.workspace,
    dir: "/data/contract",
    [Symbol.asyncDispose]: async () => {
      await owned.disposeAsync();
    },
  };
});
