// One suite for every way to a workspace: in process, over a socket, over mutual TLS, inside a container.
import { after, before, describe } from "node:test";
import type { Workspace } from "../../src/core/workspace.ts";
import { cancelTests } from "./suite/cancel.ts";
import { endTests } from "./suite/ends.ts";
import { execTests } from "./suite/exec.ts";
import { fileTests } from "./suite/files.ts";
import { Ground } from "./suite/ground.ts";
import { listTests } from "./suite/lists.ts";
import { nameTests } from "./suite/names.ts";
import { readTests } from "./suite/reads.ts";
import { systemTests } from "./suite/system.ts";
import { treeTests } from "./suite/trees.ts";
import { writeTests } from "./suite/writes.ts";

/** A workspace under test, and an existing directory inside it that belongs to the suite. */
export interface Opened extends AsyncDisposable {
  readonly workspace: Workspace;
  /** Absolute path as the workspace sees it. */
  readonly dir: string;
}

/**
 * Defines the suite. It is opened once; every test has a directory of its own and makes what it needs through the
 * workspace. The workspace must run as root and have a POSIX shell with the usual tools.
 */
export function workspaceSuite(name: string, open: () => Promise<Opened>): void {
  describe(name, () => {
    const ground = new Ground();
    let opened: Opened | undefined;
    before(async () => {
      opened = await open();
      ground.set(opened.workspace, opened.dir);
    });
    after(async () => {
      await opened?.[Symbol.asyncDispose]();
    });
    systemTests(ground);
    fileTests(ground);
    writeTests(ground);
    readTests(ground);
    listTests(ground);
    nameTests(ground);
    execTests(ground);
    endTests(ground);
    cancelTests(ground);
    treeTests(ground);
  });
}
