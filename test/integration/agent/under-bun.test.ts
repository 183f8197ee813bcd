// The executable runs on Bun: the tests of processes, of the gRPC layer and of the agent's server pass there too.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { runtimePath } from "../../support/agent-process.ts";

const ROOT = join(import.meta.dirname, "..", "..", "..");
const SUITES = [
  "./test/unit/rpc/",
  "./test/unit/agent-exec/",
  "./test/integration/agent/exec-rpc.test.ts",
  "./test/integration/agent/original-client.test.ts",
  "./test/integration/agent/start.test.ts",
  "./test/integration/agent/tls.test.ts",
];

test("the agent's processes, server and keys behave the same on Bun", { timeout: 300_000 }, async () => {
  const child = spawn(runtimePath("bun"), ["test", "--timeout", "60000", ...SUITES], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data: Buffer) => {
      text += data.toString("utf8");
    });
  }
  const [code] = (await once(child, "close")) as [number | null];
  const failed = text.split("\n").filter((line) => line.includes("(fail)") || line.includes("error:"));
  assert.equal(code, 0, failed.join("\n") || text.slice(-4_000));
  const passed = Number(/^ *(\d+) pass$/m.exec(text)?.[1]);
  assert.ok(passed >= 120, `only ${passed} tests ran`);
});
