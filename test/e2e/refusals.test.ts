// Bad input gets a stable code and a sentence that says what to do, and nothing is changed or lost.
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ContainerService } from "../../src/gen/proto/mcpcontainer/container_pb.ts";
import { Pki } from "../../src/host/pki.ts";
import { mustRun, runCommand } from "../../src/lib/command.ts";
import { readPidFile } from "../../src/lib/daemon.ts";
import { Fault } from "../../src/lib/fault.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { type ClientTls, RpcChannel } from "../../src/rpc/channel.ts";
import { executable, startHost, type TestHost } from "../support/host.ts";
import { freePort, REGISTRY_PASSWORD, REGISTRY_USER, startRegistry } from "../support/registry.ts";
import { tinyImageArchive } from "../support/tiny-image.ts";

interface Bot {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly ip: string;
}

let host: TestHost;

before(async () => {
  host = await startHost();
  await host.ok(["bot", "create", "demo"]);
});

after(async () => {
  await host[Symbol.asyncDispose]();
});

/** Runs what must fail, and that the bots are the same before and after. */
async function refused(args: readonly string[], code: number, says: RegExp, hint?: RegExp): Promise<void> {
  const before = await host.json<Bot[]>(["bot", "list"]);
  const result = await host.fails(args);
  assert.equal(result.code, code, result.stderr);
  assert.match(result.stderr, says);
  if (hint !== undefined) assert.match(result.stderr, hint);
  // Off a terminal progress is a line that ends with an ellipsis.
  const lines = result.stderr
    .trim()
    .split("\n")
    .filter((line) => !line.endsWith(" …"));
  assert.ok(lines.length <= 2, `more than a sentence and a hint: ${result.stderr}`);
  const now = await host.json<Bot[]>(["bot", "list"]);
  assert.deepEqual(
    now.map((bot) => `${bot.name} ${bot.state}`),
    before.map((bot) => `${bot.name} ${bot.state}`),
  );
}

describe("words", () => {
  test("an unknown verb, option or configuration key is told with what to do", async () => {
    await refused(["bto", "list"], 64, /Unknown verb: bto/, /memoh bot/);
    await refused(["bot", "shwo", "demo"], 64, /Unknown verb: bot shwo/, /memoh bot show/);
    await refused(["bot", "list", "--jsn"], 64, /jsn/, /--json/);
    const config = join(host.dir, "wrong.toml");
    await writeFile(config, '[http]\nadr = "x"\n');
    const wrong = await host.cli(["--config", config, "doctor"]);
    assert.equal(wrong.code, 64);
    assert.match(wrong.stderr, /unknown key http\.adr/);
    assert.match(wrong.stderr, /http\.addr/);
  });

  test("names and ids", async () => {
    await refused(["bot", "show", "nobody"], 66, /bot not found/, /memoh bot list/);
    await refused(["bot", "show", "00000000-0000-4000-8000-000000000000"], 66, /bot not found/);
    await refused(["bot", "create", "Bad_Name"], 64, /Cannot use "Bad_Name" as a bot name/, /lower-case/);
    await refused(["bot", "create", "../../etc"], 64, /as a bot name/);
    await refused(["bot", "create", "demo"], 73, /the name is taken/, /memoh bot show demo/);
    await refused(["bot", "create", "tiny", "--memory", "1"], 64, /limit memory/);
    await refused(["bot", "create", "tiny", "--memory", "lots"], 64, /--memory lots/, /512M/);
    await refused(["cp", "/etc/hostname", "/tmp/x"], 64, /exactly one side/);
    await refused(["cp", "/no/such/file", "demo:"], 66, /no such file/);
    await refused(["cp", "demo:/no/such/file", "/tmp/x"], 66, /no such file/);
    await refused(["ls", "demo", "/no/such"], 66, /\/no\/such/);
    await refused(["ls", "demo", "/bin/sh"], 78, /not a directory/i);
    await refused(["cat", "demo", "/data"], 78, /directory/);
  });
});

describe("images", () => {
  test("a malformed reference", async () => {
    await refused(["image", "normalize", "UPPER/case"], 64, /UPPER\/case/);
    await refused(["bot", "create", "new", "--image", "a b"], 64, /a b/);
    await refused(["image", "remove", "not/here"], 66, /not here/, /memoh image list/);
  });

  test("a registry that is down, one without the image, and wrong credentials are told apart", async () => {
    const port = await freePort();
    await refused(["image", "pull", `127.0.0.1:${port}/a/b:1`], 69, /127\.0\.0\.1/);
    await using registry = await startRegistry({ auth: "basic" });
    const config = await readFile(host.configFile, "utf8");
    const withRegistry = async (password: string) => {
      await writeFile(
        host.configFile,
        `${config}\n[registries."${registry.host}"]\ninsecure = true\nusername = "${REGISTRY_USER}"\npassword = "${password}"\n`,
      );
      await host.stop();
      await host.start();
    };
    try {
      await withRegistry("wrong");
      await refused(["image", "pull", `${registry.host}/a/b:1`], 77, /a\/b|credentials|denied/i);
      await refused(
        ["bot", "create", "new", "--image", `${registry.host}/a/b:1`],
        77,
        /a\/b|credentials|denied/i,
      );
      await withRegistry(REGISTRY_PASSWORD);
      await refused(["image", "pull", `${registry.host}/a/b:1`], 66, /a\/b/);
      assert.ok(!(await host.log()).includes(REGISTRY_PASSWORD));
    } finally {
      await writeFile(host.configFile, config);
      await host.stop();
      await host.start();
    }
  });

  test("an archive that is none, and one for another machine", async () => {
    const junk = join(host.dir, "junk.tar");
    await writeFile(junk, Buffer.alloc(4096, "x"));
    await refused(["image", "import", junk], 64, /junk\.tar/);
    await refused(["image", "import", "/no/such.tar"], 66, /no such file/);
    const foreign = join(host.dir, "foreign.tar");
    await tinyImageArchive(foreign, {
      name: "localhost/foreign:1",
      platform: { os: "linux", architecture: "s390x" },
    });
    await refused(["image", "import", foreign], 78, /s390x/);
    assert.ok(!(await host.ok(["image", "list"])).includes("foreign"));
  });

  test("an image without /bin/sh makes no bot", async () => {
    const bare = join(host.dir, "bare.tar");
    await tinyImageArchive(bare, { name: "localhost/bare:1", shell: false });
    await host.ok(["image", "import", bare]);
    await refused(["bot", "create", "bare", "--image", "localhost/bare:1"], 78, /no \/bin\/sh/, /image/);
  });
});

describe("the machine", () => {
  test("a taken port", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const address = taken.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    try {
      const result = await host.cli([
        "--instance",
        "porttest",
        "host",
        "--data-dir",
        join(host.dir, "p"),
        "--run-dir",
        join(host.dir, "pr"),
        "--http-addr",
        `127.0.0.1:${port}`,
      ]);
      assert.equal(result.code, 73, result.stderr);
      assert.match(result.stderr, new RegExp(`Cannot listen on 127\\.0\\.0\\.1:${port}`));
      assert.match(result.stderr, /http\.addr/);
    } finally {
      taken.close();
    }
  });

  test("a second host of the same instance", async () => {
    const second = await host.cli(["host"]);
    assert.equal(second.code, 73, second.stderr);
    assert.match(second.stderr, /already running/);
    assert.equal((await host.json<Bot>(["bot", "show", "demo"])).state, "running");
  });

  test("no CNI plugins, and no rights", async () => {
    const empty = join(host.dir, "empty");
    await mkdir(empty);
    const places = ["--data-dir", join(host.dir, "q"), "--run-dir", join(host.dir, "qr"), "--http-addr", ""];
    const plugins = await host.cli([
      "--instance",
      "plugtest",
      "host",
      ...places,
      "--network-plugin-dir",
      empty,
    ]);
    assert.equal(plugins.code, 78, plugins.stderr);
    assert.match(plugins.stderr, /CNI plugins/);
    assert.match(plugins.stderr, /apt-get install containernetworking-plugins/);
    const nobody = await runCommand(
      ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", executable(), "host", ...places],
      { env: { MEMOH_INSTANCE: "nobodytest" } },
    );
    assert.equal(nobody.code, 77, nobody.stderr);
    assert.match(nobody.stderr, /not running as root/);
  });

  test("a disk that is nearly full takes no new work, and running bots go on", async () => {
    const config = await readFile(host.configFile, "utf8");
    await writeFile(host.configFile, `${config}\n[limits]\ndisk_reserve = "900T"\n`);
    await host.stop();
    assert.equal((await host.cli(["host", "--detach"])).code, 69);
    try {
      await refused(["bot", "create", "more"], 75, /free below/, /disk_reserve/);
      const ready = await fetch(`${host.http}/ready`);
      assert.equal(ready.status, 503);
      assert.match(await ready.text(), /free below/);
      assert.equal(await host.ok(["exec", "demo", "--", "echo", "on"]), "on\n");
    } finally {
      await writeFile(host.configFile, config);
      await host.stop();
      await host.start();
    }
  });

  test("a containerd that died is started again, and calls into bots never notice", async () => {
    const daemon = await readPidFile(join(host.runDir, "containerd", "containerd.pid"));
    assert.ok(daemon !== undefined);
    process.kill(daemon.pid, "SIGKILL");
    assert.equal(await host.ok(["exec", "demo", "--", "echo", "still"]), "still\n");
    for (let attempt = 0; attempt < 200; attempt++) {
      const now = await readPidFile(join(host.runDir, "containerd", "containerd.pid"));
      if (now !== undefined && now.pid !== daemon.pid && (await fetch(`${host.http}/ready`)).status === 200)
        break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal((await fetch(`${host.http}/ready`)).status, 200);
    await host.ok(["bot", "stop", "demo"]);
    await host.ok(["bot", "start", "demo"]);
  });

  test("another containerd than before is an error that says so", async () => {
    const config = await readFile(host.configFile, "utf8");
    await writeFile(host.configFile, `${config}\n[containerd]\nnamespace = "elsewhere"\n`);
    await host.stop();
    assert.equal((await host.cli(["host", "--detach"])).code, 69);
    try {
      const refusal = await host.fails(["bot", "create", "more"]);
      assert.match(refusal.stderr, /Another containerd than before/);
      assert.equal((await fetch(`${host.http}/ready`)).status, 503);
    } finally {
      await writeFile(host.configFile, config);
      await host.stop();
      await host.start();
    }
    assert.equal(await host.ok(["exec", "demo", "--", "echo", "back"]), "back\n");
  });
});

describe("who may talk to an agent", () => {
  async function hello(bot: Bot, tls: ClientTls | undefined): Promise<string> {
    using channel = new RpcChannel({ target: `${bot.ip}:9090`, tls });
    const answer = await channel.client(ContainerService).hello({}, { timeoutMs: 5_000 });
    return answer.botId;
  }

  const unusable = (error: unknown) => Fault.is(error, "unavailable");

  test("the host, and nobody without its certificate", async () => {
    await host.ok(["bot", "create", "second"]);
    const demo = await host.json<Bot>(["bot", "show", "demo"]);
    const second = await host.json<Bot>(["bot", "show", "second"]);
    using pki = await Pki.open({ directory: join(host.dataDir, "pki"), log: silentLogger() });
    assert.equal(await hello(demo, pki.clientTls(demo.id)), demo.id);

    await assert.rejects(hello(demo, undefined), unusable);
    // Another bot's certificate opens nothing: it may only serve.
    const id = join(host.runDir, "bots", second.id, "id");
    const stolen = {
      ...pki.clientTls(demo.id),
      certificate: await readFile(join(id, "agent.crt")),
      privateKey: await readFile(join(id, "agent.key")),
    };
    await assert.rejects(hello(demo, stolen), unusable);
    const foreignDir = join(host.dir, "foreign-pki");
    using foreign = await Pki.open({ directory: foreignDir, log: silentLogger() });
    await assert.rejects(
      hello(demo, { ...foreign.clientTls(demo.id), serverCa: pki.clientTls(demo.id).serverCa }),
      unusable,
    );
    // The right host at the wrong bot: the name in the certificate is checked.
    await assert.rejects(hello(second, pki.clientTls(demo.id)), unusable);
    await host.ok(["bot", "delete", "second", "--yes"]);
  });

  test("one bot reaches neither another bot, nor the host, nor the metadata address", async () => {
    await host.ok(["bot", "create", "neighbour"]);
    const neighbour = await host.json<Bot>(["bot", "show", "neighbour"]);
    const gateway = neighbour.ip.replace(/\.\d+$/, ".1");
    const server = createServer((socket) => socket.end("host")).listen(0, gateway);
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    try {
      for (const target of [`${neighbour.ip} 9090`, `${gateway} ${port}`, "169.254.169.254 80"]) {
        const [ip = "", to = ""] = target.split(" ");
        const reached = await host.cli(["exec", "demo", "--", "nc", "-w", "1", ip, to]);
        assert.notEqual(reached.code, 0, `demo reached ${target}`);
      }
      // The same listener answers the host itself, so it was the wall and not the listener.
      assert.equal((await mustRun(["bash", "-c", `cat < /dev/tcp/${gateway}/${port}`])).stdout, "host");
    } finally {
      server.close();
      await host.ok(["bot", "delete", "neighbour", "--yes"]);
    }
  });
});
