// The host's certificate authorities: made once, kept, healed or refused, and good for exactly one use each.
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import {
  chmod,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { agentNameOf } from "../../../src/core/bot-id.ts";
import { Pki } from "../../../src/host/pki.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const BOT = "0b0e5c1e-0000-4000-8000-000000000001";
const DAY = 86_400_000;
const log = silentLogger();

interface Place extends AsyncDisposable {
  readonly directory: string;
  open(now?: () => number): Promise<Pki>;
}

async function place(): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), "memoh-pki-"));
  const directory = join(root, "data", "pki");
  return {
    directory,
    open: async (now) => await Pki.open({ directory, log, ...(now === undefined ? {} : { now }) }),
    [Symbol.asyncDispose]: async () => {
      await rm(root, { recursive: true, force: true });
    },
  };
}

async function rejectsWith(code: string, text: RegExp, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(Fault.is(error), String(error));
    assert.equal(error.code, code);
    assert.match(error.message, text);
    assert.ok(error.hint !== undefined, "a hint says what to do");
    return true;
  });
}

test("the authorities are made once, readable by root only, and survive a restart", async () => {
  await using at = await place();
  using first = await at.open();
  assert.equal((await stat(at.directory)).mode & 0o777, 0o700);
  const names = (await readdir(at.directory)).sort();
  assert.deepEqual(names, ["agents-ca.pem", "host-ca.pem", "host-client.pem"]);
  for (const name of names) assert.equal((await stat(join(at.directory, name))).mode & 0o777, 0o600);
  using second = await at.open();
  assert.deepEqual(second.clientTls(BOT), first.clientTls(BOT));
  const identity = await first.mintAgentIdentity(BOT, "boot-1");
  assert.equal(identity.hostCa, (await second.mintAgentIdentity(BOT, "boot-2")).hostCa);
});

test("modes that were loosened are tightened at the next start", async () => {
  await using at = await place();
  using _first = await at.open();
  await chmod(at.directory, 0o755);
  await chmod(join(at.directory, "host-ca.pem"), 0o644);
  using _second = await at.open();
  assert.equal((await stat(at.directory)).mode & 0o777, 0o700);
  assert.equal((await stat(join(at.directory, "host-ca.pem"))).mode & 0o777, 0o600);
});

test("an agent's certificate names its bot and may only serve", async () => {
  await using at = await place();
  using pki = await at.open();
  const identity = await pki.mintAgentIdentity(BOT, "boot-1");
  const certificate = new X509Certificate(identity.certificate);
  const ca = new X509Certificate(pki.clientTls(BOT).serverCa);
  assert.ok(certificate.verify(ca.publicKey));
  assert.ok(!certificate.verify(new X509Certificate(identity.hostCa).publicKey));
  assert.equal(certificate.subjectAltName, `DNS:${agentNameOf(BOT)}`);
  assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
  assert.match(certificate.subject, /OU=boot-1/);
  assert.equal(certificate.ca, false);
  assert.ok(Date.parse(certificate.validFrom) < Date.now() - 5 * 60_000, "valid from some minutes ago");
  assert.equal(Math.floor(identity.notAfter.getTime() / 1000) * 1000, Date.parse(certificate.validTo));
});

test("the host's certificate may only be a client, and comes from the other authority", async () => {
  await using at = await place();
  using pki = await at.open();
  const tls = pki.clientTls(BOT);
  const certificate = new X509Certificate(tls.certificate);
  const { hostCa } = await pki.mintAgentIdentity(BOT, "boot-1");
  assert.ok(certificate.verify(new X509Certificate(hostCa).publicKey));
  assert.equal(certificate.subject, "CN=memoh host");
  assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
  assert.equal(tls.serverName, agentNameOf(BOT));
  assert.notEqual(String(tls.serverCa), hostCa);
});

test("the client certificate is renewed before it ends, from the same authority", async () => {
  await using at = await place();
  let now = Date.now();
  using pki = await at.open(() => now);
  const before = pki.clientTls(BOT);
  assert.equal(await pki.renew(), false);
  now += 59 * DAY;
  assert.equal(await pki.renew(), false);
  now += 2 * DAY;
  assert.equal(await pki.renew(), true);
  const after = pki.clientTls(BOT);
  assert.notDeepEqual(after.certificate, before.certificate);
  assert.deepEqual(after.serverCa, before.serverCa);
  const end = Date.parse(new X509Certificate(after.certificate).validTo);
  assert.ok(end > now + 80 * DAY);
  using again = await at.open(() => now);
  assert.deepEqual(again.clientTls(BOT), after, "the renewed one was kept");
});

test("a client certificate that ended while the host was off is made anew at the start", async () => {
  await using at = await place();
  using first = await at.open();
  using second = await at.open(() => Date.now() + 400 * DAY);
  assert.notDeepEqual(second.clientTls(BOT).certificate, first.clientTls(BOT).certificate);
});

test("a damaged client certificate is made anew", async () => {
  await using at = await place();
  using first = await at.open();
  await truncate(join(at.directory, "host-client.pem"), 300);
  using second = await at.open();
  assert.notDeepEqual(second.clientTls(BOT).certificate, first.clientTls(BOT).certificate);
  assert.deepEqual(second.clientTls(BOT).serverCa, first.clientTls(BOT).serverCa);
});

test("a client certificate whose key belongs to another one is made anew", async () => {
  await using at = await place();
  using first = await at.open();
  const path = join(at.directory, "host-client.pem");
  const mine = await readFile(path, "utf8");
  const other = await readFile(join(at.directory, "host-ca.pem"), "utf8");
  const mixed =
    mine.slice(0, mine.indexOf("-----BEGIN PRIVATE")) + other.slice(other.indexOf("-----BEGIN PRIVATE"));
  await writeFile(path, mixed);
  using second = await at.open();
  assert.notDeepEqual(second.clientTls(BOT).certificate, first.clientTls(BOT).certificate);
});

test("a first start that was cut between two files goes on where it was", async () => {
  await using at = await place();
  using first = await at.open();
  const serverCa = first.clientTls(BOT).serverCa;
  await rm(join(at.directory, "host-client.pem"));
  await rm(join(at.directory, "host-ca.pem"));
  using second = await at.open();
  assert.deepEqual(second.clientTls(BOT).serverCa, serverCa);
});

for (const damage of [
  "emptied",
  "cut short",
  "a key that is not its own",
  "a certificate that is no authority's",
]) {
  test(`an authority's file that is damaged (${damage}) is refused and left as it is`, async () => {
    await using at = await place();
    using _first = await at.open();
    const path = join(at.directory, "agents-ca.pem");
    const [mine, other, leaf] = await Promise.all(
      ["agents-ca.pem", "host-ca.pem", "host-client.pem"].map(
        async (name) => await readFile(join(at.directory, name), "utf8"),
      ),
    );
    assert.ok(mine !== undefined && other !== undefined && leaf !== undefined);
    const key = "-----BEGIN PRIVATE";
    if (damage === "emptied") await truncate(path);
    else if (damage === "cut short") await truncate(path, 700);
    else if (damage === "a key that is not its own") {
      await writeFile(path, mine.slice(0, mine.indexOf(key)) + other.slice(other.indexOf(key)));
    } else await writeFile(path, leaf);
    const before = await readFile(path);
    await rejectsWith("data_loss", /agents-ca\.pem/, at.open());
    assert.deepEqual(await readFile(path), before);
  });
}

test("an authority that vanished is not silently replaced", async () => {
  await using at = await place();
  using _first = await at.open();
  await rename(join(at.directory, "host-ca.pem"), join(at.directory, "elsewhere"));
  await rejectsWith("data_loss", /host-ca\.pem: the file is gone/, at.open());
});

test("an authority that has ended is named with its end", async () => {
  await using at = await place();
  using _first = await at.open();
  await rejectsWith(
    "failed_precondition",
    /agents-ca\.pem: it ended on/,
    at.open(() => Date.now() + 21 * 365 * DAY),
  );
});

test("what a crash left of a write is removed once nobody can be writing it", async () => {
  await using at = await place();
  using _first = await at.open();
  const old = join(at.directory, ".memoh-tmp-old");
  const fresh = join(at.directory, ".memoh-tmp-fresh");
  await writeFile(old, "half a key");
  await writeFile(fresh, "half a key");
  const hourAgo = Date.now() / 1000 - 3600;
  await utimes(old, hourAgo, hourAgo);
  using _second = await at.open();
  const names = await readdir(at.directory);
  assert.ok(!names.includes(".memoh-tmp-old"));
  assert.ok(names.includes(".memoh-tmp-fresh"));
});

test("two hosts that start at the same time end with the same authorities", async () => {
  await using at = await place();
  const opened = await Promise.all([at.open(), at.open(), at.open()]);
  const cas = new Set(opened.map((pki) => String(pki.clientTls(BOT).serverCa)));
  const hostCas = await Promise.all(
    opened.map(async (pki) => (await pki.mintAgentIdentity(BOT, "b")).hostCa),
  );
  for (const pki of opened) pki[Symbol.dispose]();
  assert.equal(cas.size, 1);
  assert.equal(new Set(hostCas).size, 1);
});
