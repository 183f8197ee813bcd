// Every call heeds its caller's signal.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Wait } from "../../../src/core/workspace.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { faultOf, gather, pieces } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

export function cancelTests(ground: Ground): void {
  test("a call whose caller has already left does nothing and throws the caller's reason", async () => {
    const dir = await ground.fresh();
    await ground.write(`${dir}/f`, "x");
    const signal = AbortSignal.abort(new Fault("aborted", "gone"));
    const w = ground.workspace;
    const f = `${dir}/f`;
    const wait: Wait = { signal };
    const calls: Record<string, () => Promise<unknown>> = {
      readText: async () => await w.readText(f, wait),
      writeFile: async () => {
        await w.writeFile(`${dir}/a`, Buffer.alloc(1), wait);
      },
      list: async () => await w.list(dir, wait),
      stat: async () => await w.stat(f, wait),
      mkdir: async () => {
        await w.mkdir(`${dir}/b`, wait);
      },
      rename: async () => {
        await w.rename(f, `${dir}/c`, wait);
      },
      remove: async () => {
        await w.remove(f, wait);
      },
      readRaw: async () => await gather(await w.readRaw(f, wait)),
      writeRaw: async () => await w.writeRaw(`${dir}/d`, pieces("x"), wait),
      readTree: async () => await gather((await w.readTree(dir, wait)).data),
      writeTree: async () => await w.writeTree(`${dir}/e`, pieces(Buffer.alloc(1024)), wait),
      exec: async () => await w.exec({ command: "touch g", cwd: dir, signal }),
    };
    for (const [name, call] of Object.entries(calls)) {
      const fault = await faultOf(call());
      assert.deepEqual([name, fault.code, fault.message], [name, "aborted", "gone"]);
    }
    assert.equal(await ground.sh("ls -A", dir), "f\n", "nothing was changed");
  });

  test("a read that is called off in the middle throws the caller's reason", async () => {
    const dir = await ground.fresh();
    await ground.sh("truncate -s 2G f", dir);
    const controller = new AbortController();
    const reading = (async () => {
      for await (const _ of await ground.workspace.readRaw(`${dir}/f`, { signal: controller.signal })) {
        controller.abort(new Fault("aborted", "enough"));
      }
    })();
    await faultOf(reading, "aborted");
  });
}
