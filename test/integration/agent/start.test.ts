// What an agent does with its work directory when it starts.
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { testAgent } from "../../support/agent.ts";

describe("an agent that starts", { timeout: 30_000 }, () => {
  test("makes its work directory, gives templates once, and removes temporary files of a crash", async () => {
    const dir = await mkdtemp(join(tmpdir(), "memoh-agent-start-"));
    try {
      const templates = join(dir, "templates");
      const data = join(dir, "deep/data");
      await mkdir(templates);
      await writeFile(join(templates, "SOUL.md"), "soul\n");
      const flags = [`--work-dir=${data}`, `--template-dir=${templates}`];
      {
        await using agent = await testAgent({ flags });
        assert.equal(agent.workDir, data);
        assert.equal(await readFile(join(data, "SOUL.md"), "utf8"), "soul\n");
      }
      await rm(join(data, "SOUL.md"));
      const left = join(data, ".memoh-tmp-6ba7b810-9dad-11d1-80b4-00c04fd430c8");
      await writeFile(left, "half");
      // Younger ones could belong to a write of this very agent.
      await new Promise((resolve) => setTimeout(resolve, 150));
      {
        await using agent = await testAgent({ flags });
        assert.ok(!(await readdir(agent.workDir)).includes("SOUL.md"));
        while ((await readdir(agent.workDir)).some((name) => name.startsWith(".memoh-tmp-"))) {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  test("tells who it is, its health, and its log from the first line, followed to its end", async () => {
    await using agent = await testAgent({ botId: "0b0e5c1e-0000-4000-8000-000000000077", bootId: "boot-77" });
    const hello = await agent.client.hello({});
    assert.deepEqual([hello.botId, hello.bootId], ["0b0e5c1e-0000-4000-8000-000000000077", "boot-77"]);
    assert.ok(hello.version !== "" && hello.commit !== "" && /^(node|bun) \d/.test(hello.runtime));
    assert.ok(hello.capabilities.includes("argv"));
    const health = await agent.client.health({});
    assert.ok(health.rssBytes > 1n << 20n);
    const stop = new AbortController();
    let seen = "";
    await assert.rejects(
      async () => {
        for await (const { data } of agent.client.logs({ follow: true }, { signal: stop.signal })) {
          seen += Buffer.from(data).toString();
          if (!seen.includes("agent ready")) continue;
          if (seen.includes("later")) stop.abort();
          else agent.agent.log.info("later");
        }
      },
      { code: "cancelled" },
    );
    assert.match(seen, /agent ready.*\n.*later/);
    let tail = "";
    for await (const { data } of agent.client.logs({ tailLines: 1 })) tail += Buffer.from(data).toString();
    assert.match(tail, /^[^\n]*later\n$/);
  });
});
