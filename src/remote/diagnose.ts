// Why a connection to an agent does not come about: looks at the address once more, by hand, and names what it finds.
import { connect as connectSocket, type Socket } from "node:net";
import { checkServerIdentity, connect as connectTls, type TLSSocket } from "node:tls";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import { deadline } from "../lib/signal.ts";
import type { ClientTls } from "../rpc/channel.ts";
import { safeText } from "./agent-fault.ts";

/** Who should answer where. */
export interface Expected {
  readonly botId: string;
  /** `ip:port` or `unix:/path`. */
  readonly target: string;
  readonly tls?: ClientTls | undefined;
}

const PROBE_MS = 2_000;
/** The HTTP/2 client preface and an empty SETTINGS frame (RFC 9113, 3.4): every server answers with its own SETTINGS. */
const PREFACE = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);
const SETTINGS = 4;

/**
 * Explains a failed attempt. Tells apart that nobody listens, that another bot's agent answers, that the certificate is
 * of a foreign CA or has ended, that the agent refuses ours, and that what answers is no agent.
 * @param failure what the attempt failed with; returned when the address looks healthy by now
 */
export async function diagnose(expected: Expected, failure: Fault, ms = PROBE_MS): Promise<Fault> {
  try {
    const finding = await deadline(undefined, Math.min(ms, PROBE_MS), "probe", async (signal) => {
      return await probe(expected, signal);
    });
    return finding ?? failure;
  } catch (error) {
    if (Fault.is(error, "deadline_exceeded")) return silent(expected, failure);
    return Fault.from(error);
  }
}

async function probe(expected: Expected, signal: AbortSignal): Promise<Fault | undefined> {
  let socket: Socket | undefined;
  const cut = () => socket?.destroy();
  signal.addEventListener("abort", cut, { once: true });
  try {
    const opened = await open(expected, (started) => {
      socket = started;
    });
    if (opened instanceof Fault) return opened;
    return await greet(expected, opened);
  } finally {
    signal.removeEventListener("abort", cut);
    cut();
  }
}

/** Connects and, with TLS, checks who is there the way the channel would. */
async function open(expected: Expected, started: (socket: Socket) => void): Promise<Socket | Fault> {
  const address = addressOf(expected.target);
  const { promise, resolve } = Promise.withResolvers<Socket | Fault>();
  const { tls } = expected;
  if (tls === undefined) {
    const socket = connectSocket(address);
    started(socket);
    socket.once("connect", () => {
      resolve(socket);
    });
    socket.on("error", (error) => {
      resolve(unreachable(expected, error));
    });
    return await promise;
  }
  const raw = connectSocket(address);
  started(raw);
  raw.once("error", (error) => {
    resolve(unreachable(expected, error));
  });
  raw.once("connect", () => {
    raw.removeAllListeners("error");
    const socket = connectTls({
      socket: raw,
      ca: tls.serverCa,
      cert: tls.certificate,
      key: tls.privateKey,
      servername: tls.serverName,
      ALPNProtocols: ["h2"],
      // The checks are made below, one by one, so that each can be named.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    });
    started(socket);
    socket.once("secureConnect", () => {
      resolve(stranger(expected, tls, socket) ?? socket);
    });
    socket.on("error", (error: Error) => {
      resolve(noAgent(expected, `it does not speak TLS (${error.message})`));
    });
    socket.once("close", () => {
      resolve(closing(expected));
    });
  });
  return await promise;
}

/** What is wrong with the certificate shown, if anything. */
function stranger(expected: Expected, tls: ClientTls, socket: TLSSocket): Fault | undefined {
  const certificate = socket.getPeerCertificate();
  if (!socket.authorized) {
    const reason = String(socket.authorizationError ?? "unknown");
    if (/EXPIRED/.test(reason)) {
      return refused(
        expected,
        `its certificate ended on ${certificate.valid_to}`,
        "Restart the bot; check the clock",
      );
    }
    if (/NOT_YET_VALID/.test(reason)) {
      return refused(expected, `its certificate begins on ${certificate.valid_from}`, "Check the clock");
    }
    // Some runtimes report a wrong name here too; that has a better explanation below.
    if (!/ALTNAME/.test(reason)) {
      return refused(
        expected,
        `its certificate is of another CA (${reason})`,
        "The agent belongs to another memoh host or the authorities were replaced: restart the bot",
      );
    }
  }
  if (checkServerIdentity(tls.serverName, certificate) === undefined) return undefined;
  const names = safeText(certificate.subjectaltname ?? "no name", 200);
  return refused(
    expected,
    `another bot's agent answers there (${names})`,
    "The bot's address was given to another one: restart the bot",
  );
}

/** Speaks first, as HTTP/2 has it, and looks at the first frame that comes back. */
async function greet(expected: Expected, socket: Socket): Promise<Fault | undefined> {
  const { promise, resolve } = Promise.withResolvers<Fault | undefined>();
  let head = Buffer.alloc(0);
  socket.on("data", (data: Buffer) => {
    head = Buffer.concat([head, data.subarray(0, 9)]);
    if (head.length < 9) return;
    const isSettings = head[3] === SETTINGS && head.readUIntBE(0, 3) % 6 === 0 && head.readUInt32BE(5) === 0;
    resolve(isSettings ? undefined : noAgent(expected, "it does not speak HTTP/2"));
  });
  const ended = (error?: Error) => {
    if (head.length > 0) resolve(noAgent(expected, "it does not speak HTTP/2"));
    else if (expected.tls === undefined) resolve(closing(expected));
    else resolve(unwelcome(expected, error));
  };
  socket.removeAllListeners("error");
  socket.on("error", ended);
  socket.once("close", () => {
    ended();
  });
  socket.write(PREFACE);
  return await promise;
}

function unreachable(expected: Expected, error: Error): Fault {
  const errno = errnoOf(error);
  const nobody = errno === "ECONNREFUSED" || errno === "ENOENT";
  return new Fault(
    "unavailable",
    `Cannot reach the agent of bot ${expected.botId} at ${expected.target}: ${nobody ? "connection refused, nobody listens there" : error.message}`,
    { cause: error, hint: "See memoh logs for why the agent does not run, or restart the bot" },
  );
}

function refused(expected: Expected, why: string, hint: string): Fault {
  return new Fault(
    "failed_precondition",
    `Cannot use what answers at ${expected.target} as the agent of bot ${expected.botId}: ${why}`,
    {
      hint,
    },
  );
}

/** With TLS 1.3 a server judges the client's certificate after the handshake: it just ends the connection. */
function unwelcome(expected: Expected, cause: Error | undefined): Fault {
  return new Fault(
    "failed_precondition",
    `Cannot use what answers at ${expected.target} as the agent of bot ${expected.botId}: it refuses this host's certificate`,
    {
      cause,
      hint: "The bot was started by another host, or the authorities were replaced since: restart the bot",
    },
  );
}

function noAgent(expected: Expected, why: string): Fault {
  return new Fault(
    "data_loss",
    `Cannot use what answers at ${expected.target} as the agent of bot ${expected.botId}: it is no agent, ${why}`,
    { hint: "Another program holds the address: stop it, then restart the bot" },
  );
}

function closing(expected: Expected): Fault {
  return new Fault(
    "unavailable",
    `Cannot reach the agent of bot ${expected.botId} at ${expected.target}: it closes every connection at once`,
    { hint: "See memoh logs for what ails the agent, or restart the bot" },
  );
}

function silent(expected: Expected, failure: Fault): Fault {
  return new Fault(
    "unavailable",
    `Cannot reach the agent of bot ${expected.botId} at ${expected.target}: nothing answers`,
    { cause: failure, hint: "Restart the bot; if that does not help, run memoh doctor" },
  );
}

function addressOf(target: string): { host: string; port: number } | { path: string } {
  if (target.startsWith("unix:")) return { path: target.slice("unix:".length) };
  const colon = target.lastIndexOf(":");
  return { host: target.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(target.slice(colon + 1)) };
}
