// The agent's files and processes as a workspace, with no wire between.

import { LocalFiles } from "../../src/agent/files/local-files.ts";
import { LogRing } from "../../src/agent/log-ring.ts";
import { Processes } from "../../src/agent/processes/processes.ts";
import type { ExecSpec, Execution, Health, Hello, Wait, Workspace } from "../../src/core/workspace.ts";
import { buildInfo } from "../../src/lib/build-info.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { BOT } from "./fake-agent.ts";

export class LocalWorkspace extends LocalFiles implements Workspace, AsyncDisposable {
  readonly #processes: Processes;
  readonly #ring = new LogRing();
  readonly #startedAt = performance.now();

  constructor(workDir: string) {
    super({ workDir });
    const { PATH = "/usr/bin:/bin", HOME = "/" } = process.env;
    this.#processes = new Processes({ log: silentLogger(), workDir, env: { PATH, HOME } });
    this.#ring.add("agent in process");
  }

  hello(): Promise<Hello> {
    return Promise.resolve({ botId: BOT, bootId: "boot-1", ...buildInfo, capabilities: [] });
  }

  health(): Promise<Health> {
    return Promise.resolve({
      uptimeMs: performance.now() - this.#startedAt,
      rssBytes: process.memoryUsage.rss(),
      processes: this.#processes.running,
    });
  }

  logs(
    options: Wait & { readonly tailLines?: number; readonly follow?: boolean } = {},
  ): AsyncIterable<Uint8Array> {
    return this.#ring.read(options);
  }

  async exec(spec: ExecSpec): Promise<Execution> {
    return await this.#processes.exec(spec);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#processes.close();
  }
}
