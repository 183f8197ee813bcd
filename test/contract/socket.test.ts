// The contract of a workspace, kept over a unix socket.
import { workspaceOver } from "../../src/remote/provider.ts";
import { testAgent } from "../support/agent.ts";
import { BOT } from "../support/fake-agent.ts";
import { workspaceSuite } from "./workspace-suite.ts";

workspaceSuite("workspace over a unix socket", async () => {
  const agent = await testAgent({ botId: BOT });
  return {
    workspace: workspaceOver(agent.channel, BOT),
    dir: agent.workDir,
    [Symbol.asyncDispose]: async () => {
      await agent[Symbol.asyncDispose]();
    },
  };
});
