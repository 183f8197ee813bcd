// The host's two certificate authorities: one signs agents, the other the host's own client certificate (CONTRACTS 3).
import { createPrivateKey, randomUUID, X509Certificate } from "node:crypto";
import { chmod, link, mkdir, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { agentNameOf } from "../core/bot-id.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import type { KeyPair } from "../lib/certificates.ts";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";

/** What an agent is given in `/run/memoh/id`. All PEM. */
export interface AgentIdentity {
  /** May only serve, and only as this bot. */
  readonly certificate: string;
  readonly privateKey: string;
  /** The only CA whose clients the agent lets in. */
  readonly hostCa: string;
  /** When the certificate ends. */
  readonly notAfter: Date;
}

/** What the host shows to an agent and demands of it: the `tls` of a channel. */
export interface AgentTls {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
  readonly serverCa: Buffer;
  readonly serverName: string;
}

export interface PkiOptions {
  /** `<data>/pki`; made when missing. */
  readonly directory: string;
  readonly log: Logger;
  /** Milliseconds since 1970, for tests. */
  readonly now?: () => number;
}

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
/** Certificates are valid from a little earlier, so that clocks need not agree to the second. */
const BACKDATE = 10 * MINUTE;
const CA_LIFE = 20 * 365 * DAY;
const AGENT_LIFE = 365 * DAY;
const CLIENT_LIFE = 90 * DAY;
/** The client certificate is renewed when less than this is left of it. */
const RENEW_BEFORE = 30 * DAY;
const RENEW_CHECK = 6 * 60 * MINUTE;
/** Temporary files this old belong to nobody any more. */
const STALE_TEMP = 10 * MINUTE;

const AGENTS_CA = "agents-ca.pem";
const HOST_CA = "host-ca.pem";
const CLIENT = "host-client.pem";

/** Keys and certificates of one host. Dispose it to end the renewal of the client certificate. */
export class Pki implements Disposable {
  readonly #options: PkiOptions;
  readonly #agentsCa: KeyPair;
  readonly #hostCa: KeyPair;
  #client: KeyPair;
  readonly #timer: NodeJS.Timeout;

  private constructor(options: PkiOptions, agentsCa: KeyPair, hostCa: KeyPair, client: KeyPair) {
    this.#options = options;
    this.#agentsCa = agentsCa;
    this.#hostCa = hostCa;
    this.#client = client;
    this.#timer = setInterval(() => {
      this.renew().catch((error: unknown) => {
        options.log.error({ err: error }, "cannot renew the host's client certificate");
      });
    }, RENEW_CHECK).unref();
  }

  /**
   * Reads the authorities or makes them once; a client certificate that is missing, damaged, of another CA or near its
   * end is made anew. @throws Fault data_loss or failed_precondition when an authority is damaged, gone or expired
   */
  static async open(options: PkiOptions): Promise<Pki> {
    const { directory } = options;
    await prepareDirectory(directory);
    // The client certificate is made last: where it exists, an authority that does not was lost, not never made.
    const complete = await exists(join(directory, CLIENT));
    const agentsCa = await authority(options, AGENTS_CA, "memoh agents CA", complete);
    const hostCa = await authority(options, HOST_CA, "memoh host CA", complete);
    const client = (await usableClient(options, hostCa)) ?? (await makeClient(options, hostCa));
    return new Pki(options, agentsCa, hostCa, client);
  }

  /** A new key and certificate for one start of a bot's agent. The boot id is written in for people to read. */
  async mintAgentIdentity(botId: string, bootId: string): Promise<AgentIdentity> {
    const { signLeaf } = await import("../lib/certificates.ts");
    const now = nowOf(this.#options);
    const notAfter = new Date(now + AGENT_LIFE);
    const leaf = await signLeaf(this.#agentsCa, {
      commonName: agentNameOf(botId),
      unit: bootId,
      usage: "server",
      dnsNames: [agentNameOf(botId)],
      notBefore: new Date(now - BACKDATE),
      notAfter,
    });
    return { ...leaf, hostCa: this.#hostCa.certificate, notAfter };
  }

  /** What a connection to the bot's agent shows and demands. */
  clientTls(botId: string): AgentTls {
    return {
      certificate: Buffer.from(this.#client.certificate),
      privateKey: Buffer.from(this.#client.privateKey),
      serverCa: Buffer.from(this.#agentsCa.certificate),
      serverName: agentNameOf(botId),
    };
  }

  /** Makes a new client certificate when the present one nears its end. @returns whether it did */
  async renew(): Promise<boolean> {
    if (!isDue(new X509Certificate(this.#client.certificate), nowOf(this.#options))) return false;
    this.#client = await makeClient(this.#options, this.#hostCa);
    this.#options.log.info("renewed the host's client certificate");
    return true;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function nowOf(options: PkiOptions): number {
  return options.now?.() ?? Date.now();
}

/** Only root may look inside, and what a crash left of a write goes. */
async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await chmod(directory, 0o700);
    for (const name of await readdir(directory)) {
      if (!name.startsWith(".memoh-tmp-")) continue;
      const path = join(directory, name);
      const age = Date.now() - (await stat(path)).mtimeMs;
      if (age > STALE_TEMP) await rm(path, { force: true });
    }
  } catch (error) {
    throw faultFromErrno(error, `Cannot use ${directory}`, "Make the directory writable for memoh host");
  }
}

async function authority(
  options: PkiOptions,
  file: string,
  commonName: string,
  mustExist: boolean,
): Promise<KeyPair> {
  const path = join(options.directory, file);
  const found = await readPair(path);
  if (found === undefined) {
    if (mustExist) throw lost(options.directory, path, "the file is gone");
    const { makeCa } = await import("../lib/certificates.ts");
    const now = nowOf(options);
    const made = await makeCa({
      commonName,
      notBefore: new Date(now - BACKDATE),
      notAfter: new Date(now + CA_LIFE),
    });
    await createOnce(path, fileOf(made));
    // Another process may have been first: what is on disk counts.
    return await authority(options, file, commonName, true);
  }
  if (found === "damaged") throw lost(options.directory, path, "it holds no key with its certificate");
  const certificate = new X509Certificate(found.certificate);
  if (!certificate.ca) throw lost(options.directory, path, "its certificate is not an authority's");
  if (Date.parse(certificate.validTo) < nowOf(options)) {
    throw new Fault("failed_precondition", `Cannot use ${path}: it ended on ${certificate.validTo}`, {
      hint: `Check the clock; if it is right, remove ${options.directory} and restart every bot`,
    });
  }
  await chmod(path, 0o600);
  return found;
}

function lost(directory: string, path: string, why: string): Fault {
  return new Fault("data_loss", `Cannot use ${path}: ${why}`, {
    hint: `Restore it from a backup, or remove ${directory} as a whole and restart every running bot`,
  });
}

/** The client certificate on disk, if it can still be used. */
async function usableClient(options: PkiOptions, ca: KeyPair): Promise<KeyPair | undefined> {
  const path = join(options.directory, CLIENT);
  const found = await readPair(path);
  if (found === undefined) return undefined;
  const issuer = new X509Certificate(ca.certificate);
  if (found === "damaged" || !new X509Certificate(found.certificate).verify(issuer.publicKey)) {
    options.log.warn({ path }, "the host's client certificate is damaged or of another CA, making a new one");
    return undefined;
  }
  if (isDue(new X509Certificate(found.certificate), nowOf(options))) return undefined;
  await chmod(path, 0o600);
  return found;
}

/** Near its end, or not begun because the clock was set back. */
function isDue(certificate: X509Certificate, now: number): boolean {
  return Date.parse(certificate.validTo) - now < RENEW_BEFORE || Date.parse(certificate.validFrom) > now;
}

async function makeClient(options: PkiOptions, ca: KeyPair): Promise<KeyPair> {
  const { signLeaf } = await import("../lib/certificates.ts");
  const now = nowOf(options);
  const made = await signLeaf(ca, {
    commonName: "memoh host",
    usage: "client",
    notBefore: new Date(now - BACKDATE),
    notAfter: new Date(now + CLIENT_LIFE),
  });
  await writeFileAtomic(join(options.directory, CLIENT), fileOf(made), 0o600);
  return made;
}

/** Key and certificate stand in one file, so that they can never be of two different writes. */
function fileOf(pair: KeyPair): string {
  return pair.certificate + pair.privateKey;
}

/** Undefined when there is no such file. */
async function readPair(path: string): Promise<KeyPair | "damaged" | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw faultFromErrno(error, `Cannot read ${path}`, "Run memoh host as the user who owns its data");
  }
  const certificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/.exec(text)?.[0];
  const privateKey = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/.exec(text)?.[0];
  if (certificate === undefined || privateKey === undefined) return "damaged";
  return matches(certificate, privateKey) ? { certificate, privateKey } : "damaged";
}

function matches(certificate: string, privateKey: string): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey));
  } catch (error) {
    // OpenSSL's errors here all mean that the text is not what its header says.
    if (error instanceof Error) return false;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  return (await readPair(path)) !== undefined;
}

/** Makes a file that must not be replaced once it is there; whoever is second leaves the first one's. */
async function createOnce(path: string, content: string): Promise<void> {
  const temp = join(path, "..", `.memoh-tmp-${randomUUID()}`);
  try {
    await using file = await open(temp, "wx", 0o600);
    await file.writeFile(content);
    await file.sync();
    await link(temp, path);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw faultFromErrno(error, `Cannot write ${path}`);
  } finally {
    await rm(temp, { force: true });
  }
  await using directory = await open(join(path, ".."), "r");
  await directory.sync();
}
