// The contract of a workspace, kept inside a real container: real runc, real network, mutual TLS.
import { workspaceSuite } from "../contract/workspace-suite.ts";
import { botClient } from "../support/bot-client.ts";
import { startHost } from "../support/host.ts";

workspaceSuite("workspace inside a container", async () => {
  await using stack = new AsyncDisposableStack();
  const host = stack.use(await startHost());
  const bot = await host.json<{ id: string; ip: string }>(["bot", "create", "contract"]);
  const client = stack.use(await botClient(host, bot));
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
