// The walk through the whole house: one executable, a real bot, files and commands over the API and the CLI.
import assert from "node:assert/strict";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startHost, type TestHost } from "../support/host.ts";

interface Bot {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly ip: string | null;
  readonly container_id: string;
  readonly image: string;
  readonly disk_usage: number | null;
  readonly last_error: { readonly code: string; readonly message: string } | null;
}

let host: TestHost;

before(async () => {
  host = await startHost();
  await host.ok(["bot", "create", "demo"]);
});

after(async () => {
  await host[Symbol.asyncDispose]();
});

describe("a bot", () => {
  test("runs, with its own address and the default image", async () => {
    const bot = await host.json<Bot>(["bot", "show", "demo"]);
    assert.equal(bot.state, "running");
    assert.match(bot.ip ?? "", /^10\./);
    assert.equal(bot.container_id, `mcp-${bot.id}`);
    assert.equal(bot.image, host.image);
    assert.equal(bot.last_error, null);
    const list = await host.json<Bot[]>(["bot", "list"]);
    assert.deepEqual(
      list.map((each) => each.name),
      ["demo"],
    );
  });

  test("runs commands with the image's environment, in /data, and gives their status", async () => {
    assert.equal(await host.ok(["exec", "demo", "--", "pwd"]), "/data\n");
    assert.equal(await host.ok(["exec", "demo", "--", "sh", "-c", "echo $FROM_IMAGE"]), "yes\n");
    assert.equal(
      await host.ok(["exec", "demo", "-e", "A=1 2", "-w", "/tmp", "--", "sh", "-c", 'echo "$A"; pwd']),
      "1 2\n/tmp\n",
    );
    const failed = await host.cli(["exec", "demo", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert.deepEqual(failed, { code: 7, stdout: "out\n", stderr: "err\n" });
  });

  test("passes stdin on, and says when a command was ended by a signal or by time", async () => {
    const input = Buffer.alloc(300_000, "memoh\n");
    assert.equal(await host.ok(["exec", "demo", "-i", "--", "cat"], { input }), input.toString());
    assert.equal((await host.cli(["exec", "demo", "--", "sh", "-c", "kill -9 $$"])).code, 137);
    const slow = await host.cli(["exec", "demo", "--timeout", "1", "--", "sleep", "60"]);
    assert.equal(slow.code, 124);
    assert.match(slow.stderr, /timed out/);
  });

  test("runs under a terminal when asked", async () => {
    const out = await host.ok(["exec", "demo", "-t", "--", "sh", "-c", "test -t 1 && echo terminal"]);
    assert.equal(out, "terminal\r\n");
  });

  test("takes and gives files and trees", async () => {
    const tree = join(host.dir, "tree");
    await mkdir(join(tree, "empty"), { recursive: true });
    await mkdir(join(tree, "a", "b"), { recursive: true });
    await writeFile(join(tree, "a", "b", "run.sh"), "#!/bin/sh\necho hi\n", { mode: 0o755 });
    await writeFile(join(tree, "nothing"), "");
    await symlink("a/b/run.sh", join(tree, "link"));
    const single = join(host.dir, "single.txt");
    await writeFile(single, "one file\n");

    await host.ok(["cp", single, "demo:"]);
    assert.equal(await host.ok(["cat", "demo", "single.txt"]), "one file\n");
    await host.ok(["cp", tree, "demo:/data/copied"]);
    assert.equal(await host.ok(["exec", "demo", "--", "/data/copied/link"]), "hi\n");
    const listed = await host.json<{ entries: { name: string; mode: string }[] }>(["ls", "demo", "copied"]);
    assert.deepEqual(
      listed.entries.map(({ name, mode }) => `${mode} ${name}`),
      ["drwxr-xr-x a", "drwxr-xr-x empty", "Lrwxrwxrwx link", "-rw-r--r-- nothing"],
    );
    await host.ok(["cp", "demo:/data/copied", join(host.dir, "back")]);
    assert.equal(await readFile(join(host.dir, "back", "a", "b", "run.sh"), "utf8"), "#!/bin/sh\necho hi\n");
    assert.equal(await readFile(join(host.dir, "back", "nothing"), "utf8"), "");
  });

  test("keeps its data, address and container over a stop and a start", async () => {
    const before = await host.json<Bot>(["bot", "show", "demo"]);
    await host.ok(["exec", "demo", "--", "sh", "-c", "echo kept > /data/kept; echo rootfs > /etc/changed"]);
    await host.ok(["bot", "stop", "demo"]);
    const stopped = await host.json<Bot>(["bot", "show", "demo"]);
    assert.equal(stopped.state, "stopped");
    const refused = await host.fails(["exec", "demo", "--", "true"]);
    assert.equal(refused.code, 125);
    assert.match(refused.stderr, /it is stopped/);
    assert.match(refused.stderr, /memoh bot start demo/);
    await host.ok(["bot", "start", "demo"]);
    const again = await host.json<Bot>(["bot", "show", "demo"]);
    assert.equal(again.ip, before.ip);
    assert.equal(again.container_id, before.container_id);
    assert.equal(
      await host.ok(["exec", "demo", "--", "cat", "/data/kept", "/etc/changed"]),
      "kept\nrootfs\n",
    );
  });

  test("keeps running while the host is restarted and even killed", async () => {
    await host.ok([
      "exec",
      "demo",
      "--",
      "sh",
      "-c",
      "setsid sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid",
    ]);
    const before = await host.json<Bot>(["bot", "show", "demo"]);
    await host.stop();
    await host.start();
    assert.equal(
      await host.ok(["exec", "demo", "--", "sh", "-c", "kill -0 $(cat /tmp/pid) && echo alive"]),
      "alive\n",
    );
    await host.kill();
    await host.start();
    assert.equal(
      await host.ok(["exec", "demo", "--", "sh", "-c", "kill -0 $(cat /tmp/pid) && echo alive"]),
      "alive\n",
    );
    assert.equal((await host.json<Bot>(["bot", "show", "demo"])).ip, before.ip);
    // A host that has just started measures every bot.
    let used: number | null = null;
    for (let attempt = 0; attempt < 100 && used === null; attempt++) {
      used = (await host.json<Bot>(["bot", "show", "demo"])).disk_usage;
    }
    assert.ok(used !== null && used > 0, `disk usage is ${used}`);
  });

  test("cannot gain rights, see the host's files, or change its agent", async () => {
    const status = await host.ok(["exec", "demo", "--", "cat", "/proc/self/status"]);
    assert.match(status, /NoNewPrivs:\s+1/);
    assert.match(status, /Seccomp:\s+2/);
    assert.notEqual((await host.cli(["exec", "demo", "--", "mount", "-t", "tmpfs", "x", "/mnt"])).code, 0);
    const overwrite = await host.cli(["exec", "demo", "--", "sh", "-c", "echo x > /opt/memoh/memoh"]);
    assert.notEqual(overwrite.code, 0);
    assert.match(overwrite.stderr, /[Rr]ead-only/);
    assert.equal(await host.ok(["exec", "demo", "--", "hostname"]), "demo\n");
  });

  test("is deleted with its data, and only then", async () => {
    await host.ok(["bot", "create", "gone"]);
    const bot = await host.json<Bot>(["bot", "show", "gone"]);
    await host.ok(["exec", "gone", "--", "touch", "/data/file"]);
    const asked = await host.fails(["bot", "delete", "gone"]);
    assert.match(asked.stderr, /--yes/);
    await host.ok(["bot", "delete", "gone", "--yes"]);
    const missing = await host.fails(["bot", "show", bot.id]);
    assert.match(missing.stderr, /bot not found/);
    assert.deepEqual(
      (await host.json<Bot[]>(["bot", "list"])).map((each) => each.name),
      ["demo"],
    );
  });
});
