// The contract of a workspace, kept by the agent's own files and processes.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalWorkspace } from "../support/local-workspace.ts";
import { workspaceSuite } from "./workspace-suite.ts";

workspaceSuite("workspace in process", async () => {
  const dir = await mkdtemp(join(tmpdir(), "memoh-contract-"));
  const workspace = new LocalWorkspace(dir);
  return {
    workspace,
    dir,
    [Symbol.asyncDispose]: async () => {
      await workspace[Symbol.asyncDispose]();
      await rm(dir, { recursive: true, force: true });
    },
  };
});
