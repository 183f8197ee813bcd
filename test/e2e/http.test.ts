// The HTTP API on a real bot: tokens and roles, shapes and statuses of the routes, streams, limits, the exec socket.
import assert from "node:assert/strict";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { request } from "node:http";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { startHost, type TestHost } from "../support/host.ts";

const SECRET = "a secret of this test only";

let host: TestHost;
let admin: string;
let guest: string;
let owner: string;
let demo: string;

interface Problem {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

before(async () => {
  host = await startHost({ config: `[auth]\njwt_secret = "${SECRET}"` });
  demo = (await host.json<{ id: string }>(["bot", "create", "demo"])).id;
  await host.ok(["bot", "create", "other"]);
  const token = async (...args: string[]) =>
    (await host.json<{ token: string }>(["token", "create", ...args])).token;
  admin = await token("all", "--role", "admin");
  guest = await token("look", "--role", "guest", "--bot", "demo");
  owner = await token("mine", "--role", "owner", "--bot", "demo");
});

after(async () => {
  await host[Symbol.asyncDispose]();
});

async function call(
  path: string,
  options: {
    method?: string;
    token?: string;
    json?: unknown;
    body?: FormData | string;
    headers?: Record<string, string>;
  } = {},
): Promise<Response> {
  return await fetch(`${host.http}${path}`, {
    method: options.method ?? "GET",
    headers: {
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
      ...(options.json === undefined ? {} : { "content-type": "application/json" }),
      ...options.headers,
    },
    ...(options.json === undefined ? {} : { body: JSON.stringify(options.json) }),
    ...(options.body === undefined ? {} : { body: options.body }),
  });
}

async function problem(response: Response): Promise<Problem & { status: number }> {
  assert.match(response.headers.get("content-type") ?? "", /application\/problem\+json/);
  return { status: response.status, ...((await response.json()) as Problem) };
}

function jwt(claims: object, secret: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A raw request, whose Host header can be anything. */
async function raw(headers: Record<string, string>, path = "/bots"): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const url = new URL(host.http);
  request({ host: url.hostname, port: url.port, path, headers }, (response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  })
    .on("error", reject)
    .end();
  return await promise;
}

describe("who may come in", () => {
  test("nobody without a token, nobody with a wrong one", async () => {
    assert.equal((await problem(await call("/bots"))).status, 401);
    const wrong = await problem(await call("/bots", { token: "memoh_wrong" }));
    assert.deepEqual([wrong.status, wrong.code, wrong.message], [401, "unauthenticated", "invalid token"]);
    assert.equal((await call("/ping")).status, 200);
    assert.equal((await call("/health")).status, 200);
  });

  test("a token in a URL opens nothing", async () => {
    assert.equal((await call(`/bots?token=${admin}`)).status, 401);
  });

  test("a guest reads its bot and changes nothing", async () => {
    assert.equal((await call("/bots/demo", { token: guest })).status, 200);
    assert.equal((await call("/bots/demo/container/fs/list?path=/data", { token: guest })).status, 200);
    assert.equal((await call("/bots/other", { token: guest })).status, 403);
    const bots = (await (await call("/bots", { token: guest })).json()) as { items: { name: string }[] };
    assert.deepEqual(
      bots.items.map((bot) => bot.name),
      ["demo"],
    );
    for (const [method, path, json] of [
      ["POST", "/bots/demo/exec", { command: "true" }],
      ["POST", "/bots/demo/container/fs/write", { path: "/data/x", content: "x" }],
      ["POST", "/bots/demo/stop", {}],
      ["DELETE", "/bots/demo", undefined],
      ["POST", "/bots", { name: "more" }],
      ["POST", "/tokens", { name: "x", role: "admin" }],
      ["POST", "/images/pull", { ref: "alpine" }],
    ] as const) {
      const refused = await problem(await call(path, { method, token: guest, json }));
      assert.deepEqual([path, refused.status, refused.code], [path, 403, "permission_denied"]);
    }
  });

  test("an owner changes its bot and no other", async () => {
    const done = await call("/bots/demo/exec", {
      method: "POST",
      token: owner,
      json: { command: "echo hi" },
    });
    assert.equal(((await done.json()) as { stdout: string }).stdout, "hi\n");
    assert.equal(
      (await call("/bots/other/exec", { method: "POST", token: owner, json: { command: "id" } })).status,
      403,
    );
    assert.equal((await call("/tokens", { token: owner })).status, 403);
  });

  test("a JWT of the configured secret is a user, any other is nobody", async () => {
    const good = jwt({ user_id: "user-1", exp: Math.floor(Date.now() / 1000) + 60 }, SECRET);
    const bots = await call("/bots", { token: good });
    assert.deepEqual(await bots.json(), { items: [] });
    assert.equal((await call("/bots/demo", { token: good })).status, 403);
    assert.equal((await call("/bots", { token: jwt({ sub: "user-1" }, "another") })).status, 401);
    const old = jwt({ sub: "user-1", exp: 1 }, SECRET);
    assert.equal((await call("/bots", { token: old })).status, 401);
    const none = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"sub":"a"}').toString("base64url")}.`;
    assert.equal((await call("/bots", { token: none })).status, 401);
  });

  test("a revoked token is wrong at once", async () => {
    const made = await host.json<{ id: string; token: string }>(["token", "create", "short"]);
    assert.equal((await call("/bots", { token: made.token })).status, 200);
    await host.ok(["token", "delete", made.id]);
    assert.equal((await call("/bots", { token: made.token })).status, 401);
  });

  test("a foreign Host or Origin is refused, with the right token too", async () => {
    const authorization = `Bearer ${admin}`;
    const own = new URL(host.http).host;
    assert.equal(await raw({ authorization, host: own }), 200);
    assert.equal(await raw({ authorization, host: "evil.example" }), 403);
    assert.equal(await raw({ authorization, host: own, origin: "http://evil.example" }), 403);
    assert.equal(await raw({ authorization, host: own, origin: `http://${own}` }), 200);
  });

  test("tokens are nowhere in the log", async () => {
    assert.ok(!(await host.log()).includes(admin));
  });
});

describe("routes", () => {
  test("OpenAPI names every route that answers", async () => {
    const document = (await (await call("/api/openapi.json")).json()) as {
      openapi: string;
      paths: Record<string, object>;
    };
    assert.equal(document.openapi, "3.1.0");
    for (const path of ["/bots", "/bots/{bot_id}/exec", "/bots/{bot_id}/container/fs/list", "/images/pull"]) {
      assert.ok(path in document.paths, path);
    }
  });

  test("the container routes have the original's shapes", async () => {
    const shown = (await (await call("/bots/demo/container", { token: admin })).json()) as Record<
      string,
      unknown
    >;
    assert.equal(shown["container_id"], `mcp-${demo}`);
    assert.equal(shown["status"], "running");
    assert.equal(shown["task_running"], true);
    assert.equal(shown["container_path"], "/data");
    const ensured = await call("/bots/demo/container", { method: "POST", token: admin, json: {} });
    assert.deepEqual(await ensured.json(), {
      container_id: `mcp-${demo}`,
      image: host.image,
      snapshotter: "overlayfs",
      started: true,
    });
    const missing = await problem(await call("/bots/nobody/container", { token: admin }));
    assert.deepEqual([missing.status, missing.message], [404, "bot not found"]);
  });

  test("the file routes have the original's shapes and true statuses", async () => {
    const fs = "/bots/demo/container/fs";
    const post = async (action: string, json: unknown) =>
      await call(`${fs}/${action}`, { method: "POST", token: admin, json });
    assert.deepEqual(await (await post("mkdir", { path: "/data/dir" })).json(), { ok: true });
    assert.deepEqual(await (await post("write", { path: "/data/dir/a.txt", content: " text \n" })).json(), {
      ok: true,
    });
    const read = await (await call(`${fs}/read?path=/data/dir/a.txt`, { token: admin })).json();
    assert.deepEqual(read, { path: "/data/dir/a.txt", content: " text \n", size: 7 });
    const stat = (await (await call(`${fs}?path=/data/dir/a.txt`, { token: admin })).json()) as Record<
      string,
      unknown
    >;
    assert.deepEqual(
      [stat["name"], stat["path"], stat["size"], stat["mode"], stat["isDir"]],
      ["a.txt", "/data/dir/a.txt", 7, "-rw-r--r--", false],
    );
    const list = (await (await call(`${fs}/list?path=/data/dir`, { token: admin })).json()) as {
      path: string;
      entries: { path: string }[];
    };
    assert.deepEqual(
      [list.path, list.entries.map((entry) => entry.path)],
      ["/data/dir", ["/data/dir/a.txt"]],
    );
    assert.deepEqual(
      await (await post("rename", { oldPath: "/data/dir/a.txt", newPath: "/data/dir/b.txt" })).json(),
      { ok: true },
    );
    for (const [action, json, status, message] of [
      ["delete", { path: "/" }, 403, /cannot delete root directory/],
      ["delete", { path: "//data/.." }, 403, /cannot delete root directory/],
      ["mkdir", {}, 400, /path is required/],
      ["rename", { oldPath: "/data/x" }, 400, /oldPath and newPath are required/],
      ["rename", { oldPath: "/data/none", newPath: "/data/y" }, 404, /none/],
      ["write", { path: "/data/a\0b", content: "" }, 400, /NUL/],
      ["write", { path: "/data/dir", content: "" }, 409, /directory/],
      ["write", { path: "/data/dir/b.txt/c", content: "" }, 409, /directory/],
    ] as const) {
      const refused = await problem(await post(action, json));
      assert.deepEqual([action, refused.status], [action, status]);
      assert.match(refused.message, message);
    }
    assert.equal((await call(`${fs}/read?path=/data/none`, { token: admin })).status, 404);
    assert.equal((await call(`${fs}/download?path=/data/none`, { token: admin })).status, 404);
    assert.equal((await call(`${fs}/list?path=/data/dir/b.txt`, { token: admin })).status, 409);
    assert.deepEqual(await (await post("delete", { path: "/data/dir", recursive: true })).json(), {
      ok: true,
    });
  });

  test("a large upload and its download are the same bytes, as attachment with a safe name", async () => {
    const content = randomBytes(24 << 20);
    const name = 'a"b\u00e9;.html';
    const form = new FormData();
    form.append("path", `/data/${name}`);
    form.append("file", new Blob([content]), "ignored");
    const uploaded = await call("/bots/demo/container/fs/upload", {
      method: "POST",
      token: admin,
      body: form,
    });
    assert.deepEqual(await uploaded.json(), { path: `/data/${name}`, size: content.length });
    const download = await call(
      `/bots/demo/container/fs/download?${new URLSearchParams({ path: `/data/${name}` }).toString()}`,
      { token: admin },
    );
    assert.match(download.headers.get("content-type") ?? "", /text\/html/);
    assert.equal(download.headers.get("x-content-type-options"), "nosniff");
    const disposition = download.headers.get("content-disposition") ?? "";
    assert.match(disposition, /^attachment; filename="a_b_;\.html"; filename\*=UTF-8''a%22b%C3%A9%3B\.html$/);
    const hash = createHash("sha256")
      .update(Buffer.from(await download.arrayBuffer()))
      .digest("hex");
    assert.equal(hash, createHash("sha256").update(content).digest("hex"));
  });

  test("an upload that breaks off leaves the old file", async () => {
    const path = "/bots/demo/container/fs/upload?path=/data/whole";
    await call(path, { method: "POST", token: admin, body: "the old content" });
    const url = new URL(`${host.http}${path}`);
    const { promise, resolve } = Promise.withResolvers<void>();
    const broken = request({
      host: url.hostname,
      port: url.port,
      path: `${url.pathname}${url.search}`,
      method: "POST",
      headers: { authorization: `Bearer ${admin}`, "content-length": 1_000_000 },
    });
    broken.on("error", () => {
      resolve();
    });
    broken.write(Buffer.alloc(100_000, "x"));
    setTimeout(() => broken.destroy(), 200);
    await promise;
    const read = (await (
      await call("/bots/demo/container/fs/read?path=/data/whole", { token: admin })
    ).json()) as {
      content: string;
    };
    assert.equal(read.content, "the old content");
    assert.doesNotMatch(await host.ok(["exec", "demo", "--", "ls", "-a", "/data"]), /memoh-tmp/);
  });

  test("a body that is too large, not JSON or of the wrong form is told so", async () => {
    const large = await problem(
      await call("/bots", { method: "POST", token: admin, json: { name: "x".repeat(2 << 20) } }),
    );
    assert.deepEqual([large.status, large.code], [413, "resource_exhausted"]);
    const text = await problem(await call("/bots", { method: "POST", token: admin, body: "{" }));
    assert.deepEqual([text.status, text.code], [400, "invalid_argument"]);
    const form = await problem(await call("/bots", { method: "POST", token: admin, json: { name: 7 } }));
    assert.deepEqual([form.status, form.code], [400, "invalid_argument"]);
    assert.match(form.message, /name/);
    const route = await problem(await call("/nowhere", { token: admin }));
    assert.equal(route.status, 404);
  });

  test("one-shot commands give text, base64 for other bytes, and cut at the cap", async () => {
    const run = async (json: unknown) =>
      (await (await call("/bots/demo/exec", { method: "POST", token: admin, json })).json()) as Record<
        string,
        unknown
      >;
    const bytes = await run({ command: "printf '\\377\\376'" });
    assert.deepEqual(
      [bytes["stdout"], bytes["stdout_b64"]],
      ["", Buffer.from([255, 254]).toString("base64")],
    );
    const long = await run({ command: "yes 12345678 | head -c 100000", max_output: 1000 });
    assert.equal((long["stdout"] as string).length, 1000);
    assert.deepEqual([long["stdout_truncated"], long["exit_code"]], [true, 0]);
    const input = await run({ argv: ["cat"], stdin: "fed\n" });
    assert.equal(input["stdout"], "fed\n");
    const late = await run({ command: "sleep 60", timeout: 0.5 });
    assert.deepEqual([late["timed_out"], late["exit_code"]], [true, -1]);
    const none = await problem(await call("/bots/demo/exec", { method: "POST", token: admin, json: {} }));
    assert.deepEqual([none.status, none.message], [400, "command is required"]);
  });

  test("a stopped bot is 503 for files and says how to start it", async () => {
    await host.ok(["bot", "stop", "other"]);
    const refused = await problem(await call("/bots/other/container/fs/list?path=/", { token: admin }));
    assert.equal(refused.status, 503);
    assert.match(refused.message, /container not reachable: .*stopped/);
    assert.match(refused.hint ?? "", /memoh bot start other/);
    await host.ok(["bot", "start", "other"]);
  });
});

interface Final {
  readonly type: string;
  readonly exit_code?: number;
  readonly code?: string;
}

async function socket(path: string, headers: Record<string, string>): Promise<WebSocket | number> {
  const opened = new WebSocket(`${host.http.replace("http", "ws")}${path}`, { headers });
  const { promise, resolve } = Promise.withResolvers<WebSocket | number>();
  opened.on("open", () => {
    resolve(opened);
  });
  opened.on("error", () => undefined);
  opened.on("unexpected-response", (_request, response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  });
  return await promise;
}

/** Runs a command over a socket and collects its output. */
async function over(
  opened: WebSocket,
  first: object,
  then?: (send: WebSocket) => void,
): Promise<[string, Final]> {
  const out: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<Final>();
  opened.on("message", (data: Buffer, binary: boolean) => {
    if (binary) out.push(data.subarray(1));
    else resolve(JSON.parse(data.toString()) as Final);
  });
  opened.send(JSON.stringify(first));
  then?.(opened);
  const final = await promise;
  opened.close();
  return [Buffer.concat(out).toString(), final];
}

describe("the exec socket", () => {
  test("streams both ways and ends with the exit status", async () => {
    const opened = await socket("/bots/demo/exec/ws", { authorization: `Bearer ${admin}` });
    assert.ok(opened instanceof WebSocket);
    const [out, final] = await over(opened, { argv: ["cat"] }, (send) => {
      send.send(Buffer.from("one\n"), { binary: true });
      send.send(Buffer.from("two\n"), { binary: true });
      send.send(JSON.stringify({ type: "eof" }));
    });
    assert.equal(out, "one\ntwo\n");
    assert.deepEqual([final.type, final.exit_code], ["exit", 0]);
  });

  test("is a terminal that resizes", async () => {
    const opened = await socket("/bots/demo/exec/ws", { authorization: `Bearer ${admin}` });
    assert.ok(opened instanceof WebSocket);
    const [out, final] = await over(
      opened,
      { command: "stty size; read x; stty size", pty: { cols: 80, rows: 24 } },
      (send) => {
        setTimeout(() => {
          send.send(JSON.stringify({ type: "resize", cols: 100, rows: 30 }));
          send.send(Buffer.from("\n"), { binary: true });
        }, 300);
      },
    );
    assert.match(out, /24 80[\s\S]*30 100/);
    assert.equal(final.exit_code, 0);
  });

  test("a client that goes takes its command with it", async () => {
    const opened = await socket("/bots/demo/exec/ws", { authorization: `Bearer ${admin}` });
    assert.ok(opened instanceof WebSocket);
    opened.send(JSON.stringify({ argv: ["sleep", "4321"] }));
    const running = async () => /sleep 4321/.test(await host.ok(["exec", "demo", "--", "ps"]));
    for (let attempt = 0; attempt < 50 && !(await running()); attempt++);
    assert.ok(await running());
    opened.terminate();
    for (let attempt = 0; attempt < 100 && (await running()); attempt++);
    assert.ok(!(await running()));
  });

  test("opens for owners and tickets, once, and for nobody else", async () => {
    assert.equal(await socket("/bots/demo/exec/ws", {}), 401);
    assert.equal(await socket("/bots/demo/exec/ws", { authorization: `Bearer ${guest}` }), 403);
    assert.equal(await socket("/bots/none/exec/ws", { authorization: `Bearer ${admin}` }), 404);
    assert.equal(
      await socket("/bots/demo/exec/ws", { authorization: `Bearer ${admin}`, origin: "http://evil.example" }),
      403,
    );
    const { ticket } = (await (await call("/tickets", { method: "POST", token: owner })).json()) as {
      ticket: string;
    };
    const opened = await socket(`/bots/demo/exec/ws?ticket=${ticket}`, {});
    assert.ok(opened instanceof WebSocket);
    const [out] = await over(opened, { command: "echo ticket" });
    assert.equal(out, "ticket\n");
    assert.equal(await socket(`/bots/demo/exec/ws?ticket=${ticket}`, {}), 401);
  });
});
