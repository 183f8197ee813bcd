// A real image registry of a test's own (Debian's docker-registry), and a proxy before it that injects faults.
import { type ChildProcess, spawn } from "node:child_process";
import { createPrivateKey, randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, existsSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { SignJWT } from "jose";
import { makeCa, signLeaf } from "../../src/lib/certificates.ts";
import { mustRun, SYSTEM_PATH } from "../../src/lib/command.ts";
import { sleep } from "../../src/lib/signal.ts";
import type { TinyImage } from "./tiny-image.ts";

/** Who may use a registry started with `auth`. */
export const REGISTRY_USER = "tester";
export const REGISTRY_PASSWORD = "s3cret-password";
/** bcrypt of the password, so that no tool is needed to make it. */
const PASSWORD_HASH = "$2y$05$abcdefghijklmnopqrstuuUXKlvQTwfK/kphhjbeRlh5zvpJx1LLu";

const TODAY = { notBefore: new Date(Date.now() - 86_400_000), notAfter: new Date(Date.now() + 86_400_000) };

export interface RegistryOptions {
  /** `basic` asks for the password itself, `token` sends to a token server that also serves strangers, with pull only. */
  readonly auth?: "basic" | "token";
  /** Speaks https with a certificate of its own CA; its host is `localhost:PORT` then. */
  readonly tls?: boolean;
}

export interface TestRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`, as in references. */
  readonly host: string;
  /** PEM file of the CA that signed its certificate, with `tls`. */
  readonly caFile: string;
  /**
   * Copies an archive into it with skopeo.
   * @param repository `team/bot:1`
   * @param args more arguments, such as `--format v2s2`
   */
  push(archive: string, repository: string, args?: readonly string[]): Promise<void>;
  /** Puts an image in memory into it, several times faster. Only without `auth`. */
  put(image: TinyImage, repository: string): Promise<void>;
  /** Ends the server; its port refuses then. */
  stop(): Promise<void>;
}

/** Starts a registry with empty storage on a free port. Gone with its storage when disposed. */
export async function startRegistry(options: RegistryOptions = {}): Promise<TestRegistry> {
  await installRegistry();
  const dir = await mkdtemp("/tmp/memoh-reg-");
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const port = await freePort();
  const host = `${options.tls === true ? "localhost" : "127.0.0.1"}:${port}`;
  const caFile = join(dir, "ca.pem");
  const auth: string[] = [];
  if (options.auth === "basic") {
    await writeFile(join(dir, "htpasswd"), `${REGISTRY_USER}:${PASSWORD_HASH}\n`);
    auth.push("auth:", "  htpasswd:", "    realm: test", `    path: ${dir}/htpasswd`);
  }
  if (options.auth === "token") {
    const tokens = stack.use(await startTokenServer(dir, host));
    auth.push("auth:", "  token:", `    realm: ${tokens.realm}`, `    service: ${host}`);
    auth.push("    issuer: test", `    rootcertbundle: ${dir}/issuer.pem`);
  }
  const config = [
    "version: 0.1",
    "log: { level: error, accesslog: { disabled: true } }",
    `storage: { filesystem: { rootdirectory: ${dir}/storage }, delete: { enabled: true } }`,
    `http: { addr: "127.0.0.1:${port}", secret: test${options.tls === true ? `, ${await tlsConfig(dir, caFile)}` : ""} }`,
    ...auth,
    "",
  ].join("\n");
  await writeFile(join(dir, "config.yml"), config);
  const log = openSync(join(dir, "log"), "a");
  const server = spawn(
    "setpriv",
    ["--pdeathsig", "KILL", "docker-registry", "serve", join(dir, "config.yml")],
    { env: { PATH: SYSTEM_PATH }, stdio: ["ignore", "ignore", log] },
  );
  closeSync(log);
  stack.defer(async () => {
    await endProcess(server);
  });
  for (const until = Date.now() + 30_000; ; await sleep(20)) {
    if (await answers(port)) break;
    if (server.exitCode !== null || Date.now() > until) {
      throw new Error(`docker-registry did not start: ${await readFile(join(dir, "log"), "utf8")}`);
    }
  }
  const owned = stack.move();
  return {
    host,
    caFile,
    push: async (archive, repository, args = []) => {
      const credentials =
        options.auth === undefined ? [] : ["--dest-creds", `${REGISTRY_USER}:${REGISTRY_PASSWORD}`];
      await mustRun(
        [
          "skopeo",
          "copy",
          "--quiet",
          "--dest-tls-verify=false",
          ...credentials,
          ...args,
          `oci-archive:${archive}`,
          `docker://${host}/${repository}`,
        ],
        { timeoutMs: 60_000 },
      );
    },
    put: async (image, repository) => {
      await putImage(`http://${host}/v2`, image, repository);
    },
    stop: async () => {
      await endProcess(server);
    },
    [Symbol.asyncDispose]: async () => {
      await owned.disposeAsync();
    },
  };
}

/** Makes a CA and a certificate for localhost. @returns the registry's configuration of them */
async function tlsConfig(dir: string, caFile: string): Promise<string> {
  const ca = await makeCa({ commonName: "test registry CA", ...TODAY });
  const leaf = await signLeaf(ca, {
    commonName: "localhost",
    usage: "server",
    dnsNames: ["localhost"],
    ...TODAY,
  });
  await writeFile(caFile, ca.certificate);
  await writeFile(join(dir, "tls.pem"), leaf.certificate);
  await writeFile(join(dir, "tls.key"), leaf.privateKey, { mode: 0o600 });
  return `tls: { certificate: ${dir}/tls.pem, key: ${dir}/tls.key }`;
}

async function answers(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1");
  socket.once("connect", () => {
    resolve(true);
  });
  socket.once("error", () => {
    resolve(false);
  });
  const connected = await promise;
  socket.destroy();
  return connected;
}

async function putImage(base: string, image: TinyImage, repository: string): Promise<void> {
  const [name = "", tag = ""] = repository.split(":");
  const send = async (method: string, url: string, body?: Buffer, type = "application/octet-stream") => {
    const response = await fetch(url, {
      method,
      headers: { "content-type": type },
      ...(body === undefined ? {} : { body: new Uint8Array(body) }),
    });
    await response.arrayBuffer();
    return response;
  };
  for (const [digest, blob] of image.blobs) {
    if (digest === image.manifest.digest) continue;
    if ((await send("HEAD", `${base}/${name}/blobs/${digest}`)).ok) continue;
    const begun = await send("POST", `${base}/${name}/blobs/uploads/`);
    const location = new URL(begun.headers.get("location") ?? "", base);
    location.searchParams.set("digest", digest);
    const put = await send("PUT", location.href, blob);
    if (put.status !== 201) throw new Error(`PUT of ${digest} answered ${put.status}`);
  }
  const { mediaType, digest } = image.manifest;
  const put = await send("PUT", `${base}/${name}/manifests/${tag}`, image.blobs.get(digest), mediaType);
  if (put.status !== 201) throw new Error(`PUT of the manifest answered ${put.status}`);
}

/** A request as the proxy sees it. */
export interface ProxiedRequest {
  readonly method: string;
  /** `/v2/team/bot/blobs/sha256:…` */
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  /** How many requests of this path came before. */
  readonly before: number;
}

/** What the proxy does with a request. */
export type ProxyAction =
  | { readonly kind: "pass" }
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string | Buffer;
    }
  /** Cuts the connection after so many bytes of the body, the first of them wrong if so asked. */
  | { readonly kind: "cut"; readonly after: number; readonly corrupt?: boolean }
  /** Sends so many bytes of the body and then nothing. */
  | { readonly kind: "stall"; readonly after: number }
  /** Flips a bit of the first byte of the body. */
  | { readonly kind: "corrupt" }
  /** Asks upstream without the Range header. */
  | { readonly kind: "ignore-range" }
  /** Sends the client to the same path of another server. */
  | { readonly kind: "redirect"; readonly to: string };

export interface FaultProxy extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** Every request so far. */
  readonly requests: readonly ProxiedRequest[];
  /** Decides about each request; passes all when not set. */
  rule: (request: ProxiedRequest) => ProxyAction | Promise<ProxyAction>;
}

/** Starts a proxy to a registry. */
export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const requests: ProxiedRequest[] = [];
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? "";
    const before = requests.filter((earlier) => earlier.path === path).length;
    const seen = { method: incoming.method ?? "", path, headers: incoming.headers, before };
    requests.push(seen);
    void Promise.resolve(proxy.rule(seen)).then((action) => {
      perform(action, upstream, incoming, outgoing);
    });
  });
  await listening(server);
  const proxy: FaultProxy = {
    host: hostOf(server),
    requests,
    rule: () => ({ kind: "pass" }),
    [Symbol.asyncDispose]: async () => {
      await closed(server);
    },
  };
  return proxy;
}

function perform(
  action: ProxyAction,
  upstream: string,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  if (action.kind === "answer") {
    outgoing.writeHead(action.status, action.headers).end(action.body ?? "");
    return;
  }
  if (action.kind === "redirect") {
    outgoing.writeHead(307, { location: `${action.to}${incoming.url ?? ""}` }).end();
    return;
  }
  const { range: _, ...rest } = incoming.headers;
  const headers = action.kind === "ignore-range" ? rest : incoming.headers;
  const outer = request(
    `http://${upstream}${incoming.url ?? ""}`,
    { method: incoming.method, headers, agent: false },
    (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      let sent = 0;
      answer.on("data", (chunk: Buffer) => {
        const corrupt = action.kind === "corrupt" || (action.kind === "cut" && action.corrupt === true);
        if (corrupt && sent === 0) chunk[0] = (chunk[0] ?? 0) ^ 1;
        const limit = action.kind === "cut" || action.kind === "stall" ? action.after - sent : chunk.length;
        const piece = chunk.subarray(0, Math.max(limit, 0));
        sent += piece.length;
        if (piece.length === 0) return;
        const flushed = () => {
          if (action.kind === "cut" && sent >= action.after) outgoing.destroy();
          else answer.resume();
        };
        answer.pause();
        outgoing.write(piece, flushed);
      });
      answer.on("end", () => {
        if (action.kind !== "stall") outgoing.end();
      });
    },
  );
  outer.on("error", () => {
    outgoing.destroy();
  });
  incoming.pipe(outer);
}

interface TokenServer extends AsyncDisposable {
  readonly realm: string;
}

/** Gives tokens as the distribution project specifies: pull for everybody, push for who has the password. */
async function startTokenServer(dir: string, service: string): Promise<TokenServer> {
  const ca = await makeCa({ commonName: "test issuer", ...TODAY });
  await writeFile(join(dir, "issuer.pem"), ca.certificate);
  const der = ca.certificate.replaceAll(/-----[^-]+-----|\s/g, "");
  const key = createPrivateKey(ca.privateKey);
  const expected = `Basic ${Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString("base64")}`;
  const server = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url ?? "", "http://token");
    const { authorization } = incoming.headers;
    if (authorization !== undefined && authorization !== expected) {
      outgoing.writeHead(401).end();
      return;
    }
    const access = url.searchParams.getAll("scope").map((scope) => {
      const [type = "", name = "", actions = ""] = scope.split(":");
      const asked = actions.split(",");
      // Private repositories show themselves to the user alone.
      const granted =
        authorization === undefined
          ? asked.filter((a) => a === "pull" && !name.startsWith("private/"))
          : asked;
      return { type, name, actions: granted };
    });
    void new SignJWT({ access })
      .setProtectedHeader({ alg: "ES256", typ: "JWT", x5c: [der] })
      .setIssuer("test")
      .setSubject(REGISTRY_USER)
      .setAudience(service)
      .setIssuedAt()
      .setNotBefore("-10s")
      .setExpirationTime("60s")
      .setJti(randomUUID())
      .sign(key)
      .then((token) => {
        outgoing
          .writeHead(200, { "content-type": "application/json" })
          .end(JSON.stringify({ token, expires_in: 60 }));
      });
  });
  await listening(server);
  return {
    realm: `http://${hostOf(server)}/token`,
    [Symbol.asyncDispose]: async () => {
      await closed(server);
    },
  };
}

async function installRegistry(): Promise<void> {
  const missing = [
    ["/usr/bin/docker-registry", "docker-registry"],
    ["/usr/bin/skopeo", "skopeo"],
  ].flatMap(([path = "", name = ""]) => (existsSync(path) ? [] : [name]));
  if (missing.length === 0) return;
  await mustRun(
    ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends", ...missing],
    { timeoutMs: 300_000, env: { DEBIAN_FRONTEND: "noninteractive" } },
  );
}

/** A port nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createTcpServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function listening(server: Server): Promise<void> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
}

function hostOf(server: Server): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  server.close();
  await once(server, "close");
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}
