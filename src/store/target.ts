// Where a database is: parsed from a URL or given in parts, with the password out of sight of every printer.
import { currentUser } from "../lib/current-user.ts";
import { Fault } from "../lib/fault.ts";

const TLS_MODES = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const;

/** libpq's sslmode without `allow`. */
export type TlsMode = (typeof TLS_MODES)[number];

/** A database and who connects to it. */
export interface DatabaseTarget {
  /** Host name or address; a directory is where the server's unix socket is. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** A function, so that no log and no JSON of the target can hold it. */
  readonly password: () => string;
  readonly tls: TlsMode;
  /** File with the CA certificates to trust. */
  readonly rootCert: string | undefined;
  /** Shown by the server beside our connections. */
  readonly applicationName: string;
}

/** A target in parts; what is absent has the default of libpq. Special characters need no escaping here. */
export interface DatabaseParts {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly user?: string | undefined;
  readonly database?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: string | undefined;
  readonly rootCert?: string | undefined;
  readonly applicationName?: string | undefined;
}

/** Fills in defaults. @throws Fault invalid_argument naming the part */
export function databaseTarget(parts: DatabaseParts): DatabaseTarget {
  const host = parts.host === undefined || parts.host === "" ? "/var/run/postgresql" : parts.host;
  const port = parts.port ?? 5432;
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw bad("the port must be 1 to 65535");
  if (host.includes(",") && !host.startsWith("/")) throw bad("more than one host is not supported");
  const socket = host.startsWith("/");
  const mode = parts.tls ?? (socket ? "disable" : "prefer");
  const tls = TLS_MODES.find((known) => known === mode);
  if (tls === undefined) throw bad(`sslmode must be one of ${TLS_MODES.join(", ")}`);
  const user = parts.user === undefined || parts.user === "" ? currentUser() : parts.user;
  const password = parts.password ?? "";
  for (const text of [host, user, password, parts.database ?? ""]) {
    if (text.includes("\0")) throw bad("a part holds a NUL character");
  }
  return Object.freeze({
    host,
    port,
    user,
    database: parts.database === undefined || parts.database === "" ? user : parts.database,
    password: () => password,
    // TLS is not spoken over unix sockets.
    tls: socket ? "disable" : tls,
    rootCert: parts.rootCert,
    applicationName: parts.applicationName ?? "memoh",
  });
}

/**
 * Reads `postgres://user:password@host:port/database?sslmode=…` as libpq does: every part percent-encoded, a socket
 * directory as `?host=/dir` or as an encoded host.
 * @throws Fault invalid_argument that names the part and never shows the URL
 */
export function parseDatabaseUrl(url: string): DatabaseTarget {
  const [, rest] = /^postgres(?:ql)?:\/\/(.*)$/s.exec(url) ?? [];
  if (rest === undefined) throw bad("it must start with postgres://");
  const end = rest.search(/[/?#]/);
  const authority = end < 0 ? rest : rest.slice(0, end);
  const tail = end < 0 ? "" : rest.slice(end);
  const question = tail.indexOf("?");
  const path = question < 0 ? tail : tail.slice(0, question);
  if (path.includes("@") || tail.includes("#") || path.lastIndexOf("/") > 0) {
    throw bad("user, password and database must be percent-encoded");
  }
  const at = authority.lastIndexOf("@");
  const userinfo = at < 0 ? "" : authority.slice(0, at);
  const colon = userinfo.indexOf(":");
  const query = parseQuery(question < 0 ? "" : tail.slice(question + 1));
  const [hostText, portText] = splitHost(authority.slice(at + 1));
  const port = query.get("port") ?? portText;
  return databaseTarget({
    host: query.get("host") ?? decode(hostText, "host"),
    port: port === undefined || port === "" ? undefined : Number(port),
    user: query.get("user") ?? decode(colon < 0 ? userinfo : userinfo.slice(0, colon), "user"),
    password:
      query.get("password") ?? (colon < 0 ? undefined : decode(userinfo.slice(colon + 1), "password")),
    database: query.get("dbname") ?? decode(path.slice(1), "database"),
    tls: query.get("sslmode"),
    rootCert: query.get("sslrootcert"),
    applicationName: query.get("application_name"),
  });
}

/** The target for people and logs: everything but the password. */
export function describeTarget(target: DatabaseTarget): string {
  const host = target.host.startsWith("/") ? encodeURIComponent(target.host) : target.host;
  return `postgres://${encodeURIComponent(target.user)}@${host}:${target.port}/${encodeURIComponent(target.database)}`;
}

const QUERY_KEYS = [
  "host",
  "port",
  "user",
  "password",
  "dbname",
  "sslmode",
  "sslrootcert",
  "application_name",
];

function parseQuery(text: string): Map<string, string> {
  const query = new Map<string, string>();
  for (const pair of text.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const key = equals < 0 ? pair : pair.slice(0, equals);
    if (!QUERY_KEYS.includes(key)) {
      // The unknown key is not shown: it may be the rest of a password that holds a question mark.
      throw bad(`a parameter after the question mark is not one of ${QUERY_KEYS.join(", ")}`);
    }
    query.set(key, decode(equals < 0 ? "" : pair.slice(equals + 1), key));
  }
  return query;
}

function splitHost(text: string): [host: string, port: string | undefined] {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d*))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined)
    throw bad("host and port cannot be told apart (an IPv6 address stands in brackets)");
  return [host, port];
}

function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // The error's own words would show the part, which may be the password.
    throw bad(
      `the ${part} holds a % that is not followed by two hexadecimal digits (a % itself is written %25)`,
    );
  }
}

function bad(why: string): Fault {
  return new Fault("invalid_argument", `Cannot read the database URL: ${why}`, {
    hint: "Write postgres://user:password@host:5432/database, with / ? # @ : % in a part written as %2F %3F %23 %40 %3A %25",
  });
}
