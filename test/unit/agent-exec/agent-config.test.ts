// The agent's configuration and identity, and what each mistake in them is told.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { readIdentity } from "../../../src/agent/identity.ts";
import { loadAgentConfig } from "../../../src/config/agent-config.ts";

describe("the agent's configuration", () => {
  test("is that of a container when nothing is said", () => {
    const config = loadAgentConfig([], {});
    assert.deepEqual(config.listen, { kind: "tcp", host: "0.0.0.0", port: 9090, insecure: false });
    assert.equal(config.workDir, "/data");
    assert.equal(config.identityDir, "/run/memoh/id");
    assert.equal(config.templateDir, "/opt/mcp-template");
    assert.ok(Object.isFrozen(config));
  });

  test("takes addresses as flags, and as the original's variable", () => {
    const listen = (argv: string[], variable?: string) =>
      loadAgentConfig(argv, { MCP_LISTEN_ADDR: variable }).listen;
    const tcp = (host: string, port: number, insecure: boolean) => ({ kind: "tcp", host, port, insecure });
    assert.deepEqual(listen([], ":9191"), tcp("0.0.0.0", 9191, false));
    assert.deepEqual(listen(["--listen=10.0.0.1:1"], ":9191"), tcp("10.0.0.1", 1, false));
    assert.deepEqual(listen(["--insecure"]), tcp("127.0.0.1", 9090, true));
    assert.deepEqual(listen(["--insecure", "--listen", "[::1]:0"]), tcp("::1", 0, true));
    assert.deepEqual(listen(["--insecure", "--listen", "localhost:5"]), tcp("localhost", 5, true));
    assert.deepEqual(listen(["--insecure", "--listen", "127.9.9.9:5"]), tcp("127.9.9.9", 5, true));
    assert.deepEqual(listen(["--listen=unix:/run/a.sock"]), { kind: "unix", path: "/run/a.sock" });
    assert.deepEqual(listen(["--listen=unix:///run/a.sock"]), { kind: "unix", path: "/run/a.sock" });
    assert.deepEqual(listen(["--listen=unix:a.sock"]), { kind: "unix", path: join(process.cwd(), "a.sock") });
  });

  test("refuses to serve the network without TLS", () => {
    for (const address of [
      "0.0.0.0:1",
      ":1",
      "10.1.1.1:1",
      "[::]:1",
      "128.0.0.1:1",
      "127.0.0.1.evil:1",
      "example:1",
    ]) {
      assert.throws(() => loadAgentConfig(["--insecure", "--listen", address], {}), {
        code: "invalid_argument",
        message: /not a loopback address/,
      });
    }
  });

  test("names what it cannot use", () => {
    const cases: [string[], RegExp][] = [
      [["--listen", "9090"], /not an address/],
      [["--listen", "a:b"], /not an address/],
      [["--listen", "127.0.0.1:65536"], /not an address/],
      [["--listen", "unix:"], /empty or too long/],
      [["--listen", `unix:/${"x".repeat(108)}`], /empty or too long/],
      [["--listen"], /--listen without a value/],
      [["--lisen=x:1"], /no such option/],
      [["--insecure=yes"], /no such option/],
      [["stray"], /no such option/],
      [["--log-level=loud"], /"loud" as --log-level/],
    ];
    for (const [argv, message] of cases) {
      assert.throws(() => loadAgentConfig(argv, {}), { code: "invalid_argument", message });
    }
    assert.throws(() => loadAgentConfig(["--lisen=x:1"], {}), { hint: "Did you mean --listen?" });
  });

  test("keeps what steers its own runtime from commands", () => {
    const { commandEnv } = loadAgentConfig([], {
      BUN_OPTIONS: "x",
      BUN_BE_BUN: "1",
      NODE_OPTIONS: "x",
      MEMOH_X: "x",
      MCP_LISTEN_ADDR: ":1",
      PATH: "/p",
      LANG: "C",
    });
    assert.deepEqual({ ...commandEnv, HOME: "" }, { HOME: "", PATH: "/p", LANG: "C" });
    assert.match(loadAgentConfig([], {}).commandEnv["PATH"] ?? "", /\/usr\/bin/);
  });

  test("makes paths absolute, and asks for an identity only where one is needed", () => {
    assert.equal(loadAgentConfig(["--work-dir=w"], {}).workDir, join(process.cwd(), "w"));
    assert.equal(loadAgentConfig(["--insecure"], {}).identityDir, undefined);
    assert.equal(loadAgentConfig(["--insecure", "--identity-dir=/id"], {}).identityDir, "/id");
  });
});

describe("the agent's identity", () => {
  test("is made up without a directory, anew each time", async () => {
    const [first, second] = [await readIdentity(undefined), await readIdentity(undefined)];
    assert.equal(first.botId, "local");
    assert.notEqual(first.bootId, second.bootId);
  });

  test("is read from its file", async () => {
    await using dir = await temp();
    await dir.write('{"bot_id":"b","boot_id":"s","name":"later field","command_env":{"A":"1"}}');
    assert.deepEqual(await readIdentity(dir.path), { botId: "b", bootId: "s", commandEnv: { A: "1" } });
  });

  test("that is missing or malformed is refused by name", async () => {
    await using dir = await temp();
    await assert.rejects(readIdentity(dir.path), {
      code: "failed_precondition",
      message: /identity\.json: no such file/,
    });
    for (const text of [
      "",
      "[]",
      "null",
      '{"bot_id":"b"}',
      '{"bot_id":1,"boot_id":"s"}',
      '{"bot_id":"","boot_id":"s"}',
    ]) {
      await dir.write(text);
      await assert.rejects(readIdentity(dir.path), {
        code: "failed_precondition",
        message: /Cannot use the identity/,
      });
    }
    for (const env of ['"x"', "[1]", '{"A":1}']) {
      await dir.write(`{"bot_id":"b","boot_id":"s","command_env":${env}}`);
      await assert.rejects(readIdentity(dir.path), { code: "failed_precondition", message: /command_env/ });
    }
  });
});

async function temp(): Promise<{ path: string; write(text: string): Promise<void> } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "memoh-identity-"));
  return {
    path,
    write: async (text) => {
      await writeFile(join(path, "identity.json"), text);
    },
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true, force: true });
    },
  };
}
