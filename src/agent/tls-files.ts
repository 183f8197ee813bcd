// The agent's keys: files the host wrote and renews in place while the agent runs.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import type { ServerTls } from "../rpc/server.ts";

/** The host writes the certificate last, so a new one says that all are there. */
const CERTIFICATE = "agent.crt";
const KEY = "agent.key";
const HOST_CA = "host-ca.crt";

/**
 * Reads the keys and checks that they belong together.
 * @throws Fault failed_precondition
 */
export async function readTls(directory: string): Promise<ServerTls> {
  try {
    const [certificate, privateKey, clientCa] = await Promise.all(
      [CERTIFICATE, KEY, HOST_CA].map((name) => readFile(join(directory, name))),
    );
    if (certificate === undefined || privateKey === undefined || clientCa === undefined) {
      throw new Error("three files were asked for");
    }
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey))) {
      throw new Error(`${CERTIFICATE} and ${KEY} do not belong together`);
    }
    // Only to see that it is one: a context without its CA would let nobody in.
    void new X509Certificate(clientCa);
    return { certificate, privateKey, clientCa };
  } catch (error) {
    const { message } = faultFromErrno(error, `Cannot use the keys in ${directory}`);
    throw new Fault("failed_precondition", message, {
      cause: error,
      hint: "The host writes them before it starts the agent; outside a container use --insecure",
    });
  }
}

export interface TlsWatch {
  readonly log: Logger;
  /** How often the certificate is looked at. */
  readonly intervalMs: number;
  readonly onRenewed: (tls: ServerTls) => void;
}

/**
 * Calls back with new keys when the certificate has changed and all of them fit; keeps the old ones until then. Looks
 * rather than listens: a change in a mounted directory is not always announced.
 */
export async function watchTls(directory: string, watch: TlsWatch): Promise<Disposable> {
  const file = join(directory, CERTIFICATE);
  let known = await versionOf(file);
  let looking = false;
  const look = async () => {
    try {
      const version = await versionOf(file);
      if (version === known) return;
      const tls = await readTls(directory);
      known = version;
      watch.onRenewed(tls);
      watch.log.info({ validTo: new X509Certificate(tls.certificate).validTo }, "certificate renewed");
    } catch (error) {
      watch.log.warn({ err: error }, "the certificate changed but cannot be used yet");
    }
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, watch.intervalMs);
  timer.unref();
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
    },
  };
}

async function versionOf(file: string): Promise<string> {
  const { ino, mtimeNs, size } = await stat(file, { bigint: true });
  return `${ino}-${mtimeNs}-${size}`;
}
