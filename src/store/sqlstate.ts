// Foreign world: errors of Postgres (SQLSTATE), of its driver and of the way to it, turned into Faults.
import postgres from "postgres";
import { errnoOf } from "../lib/errno.ts";
import { type Code, Fault } from "../lib/fault.ts";

interface Meaning {
  readonly code: Code;
  /** Words instead of the server's own. */
  readonly why?: string;
  readonly hint?: string;
}

const START_IT = "Start Postgres, or check the database URL; memoh goes on by itself once it answers";
const FREE_DISK = "Free disk space where Postgres keeps its data";
const CHECK_URL = "Check user, password and database in the database URL";

/** SQLSTATEs, longest first: five characters, else the class of two (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
const SQLSTATES: Readonly<Record<string, Meaning>> = {
  "08": { code: "unavailable", why: "the connection to the database broke", hint: START_IT },
  "0A": { code: "unimplemented" },
  "22": { code: "invalid_argument" },
  "22021": { code: "invalid_argument", why: "a text holds a NUL character or is not UTF-8" },
  "22P05": { code: "invalid_argument", why: "a text holds a character the database cannot keep" },
  "23502": { code: "invalid_argument" },
  "23503": { code: "failed_precondition", why: "something it refers to does not exist" },
  "23505": { code: "already_exists", why: "it exists already" },
  "23514": { code: "invalid_argument" },
  "25006": {
    code: "unavailable",
    why: "the database is read-only",
    hint: "Point the database URL at the primary",
  },
  "28": { code: "failed_precondition", hint: CHECK_URL },
  "3D000": { code: "failed_precondition", hint: `${CHECK_URL}, or create the database` },
  "40": { code: "aborted" },
  "42501": { code: "failed_precondition", hint: "Give the user of the database URL the right to do this" },
  "42P01": { code: "failed_precondition", hint: "Run `memoh migrate up`" },
  "42703": { code: "failed_precondition", hint: "Run `memoh migrate up`" },
  "53": { code: "resource_exhausted" },
  "53100": { code: "resource_exhausted", why: "the disk of the database is full", hint: FREE_DISK },
  "53300": {
    code: "resource_exhausted",
    why: "the database has no connection left",
    hint: "Raise max_connections of Postgres",
  },
  "55P03": { code: "aborted", why: "another change holds the lock" },
  "57014": { code: "deadline_exceeded", why: "the database took too long" },
  "57P": { code: "unavailable", why: "the database is being stopped or started", hint: START_IT },
  "58030": { code: "unavailable", why: "the database cannot read or write its disk" },
  XX001: { code: "data_loss" },
  XX002: { code: "data_loss" },
};

const BROKEN: Meaning = { code: "unavailable", why: "the connection to the database broke", hint: START_IT };

/** Codes of the driver and errno of the way to the server. */
const CONNECTION_CODES: Readonly<Record<string, Meaning>> = {
  CONNECTION_CLOSED: BROKEN,
  CONNECTION_DESTROYED: BROKEN,
  CONNECTION_ENDED: BROKEN,
  ECONNRESET: BROKEN,
  EPIPE: BROKEN,
  CONNECT_TIMEOUT: { code: "unavailable", why: "the database does not answer", hint: START_IT },
  ETIMEDOUT: { code: "unavailable", why: "the database does not answer", hint: START_IT },
  ECONNREFUSED: { code: "unavailable", why: "nothing listens where the database should be", hint: START_IT },
  ENOENT: { code: "unavailable", why: "there is no database socket", hint: START_IT },
  EAGAIN: { code: "unavailable", why: "the database takes no more connections", hint: START_IT },
  EHOSTUNREACH: { code: "unavailable", why: "the database's host is out of reach", hint: START_IT },
  ENETUNREACH: { code: "unavailable", why: "the database's network is out of reach", hint: START_IT },
  ENOTFOUND: { code: "unavailable", why: "the database's host name is unknown", hint: START_IT },
  EAI_AGAIN: { code: "unavailable", why: "the database's host name cannot be looked up now", hint: START_IT },
  EACCES: {
    code: "failed_precondition",
    why: "this user may not use the database's socket",
    hint: "Run memoh as root, or give the user the right to the socket",
  },
  SASL_SIGNATURE_MISMATCH: {
    code: "failed_precondition",
    why: "the server does not know the password either",
    hint: CHECK_URL,
  },
};

/** How to say what failed: `doing` completes "Cannot …"; `conflicts` has words for constraints by name. */
export interface Doing {
  readonly doing: string;
  readonly conflicts?: Readonly<Record<string, string>>;
}

/** A Fault for a failed database call: "Cannot <doing>: <why>". Faults pass unchanged. */
export function faultFromDatabase(error: unknown, { doing, conflicts = {} }: Doing): Fault {
  if (error instanceof Fault) return error;
  if (error instanceof postgres.PostgresError) {
    const meaning =
      SQLSTATES[error.code] ?? SQLSTATES[error.code.slice(0, 3)] ?? SQLSTATES[error.code.slice(0, 2)];
    const named = error.constraint_name === undefined ? undefined : conflicts[error.constraint_name];
    return new Fault(
      meaning?.code ?? "internal",
      `Cannot ${doing}: ${named ?? meaning?.why ?? error.message}`,
      {
        cause: error,
        hint: meaning?.hint ?? error.hint,
      },
    );
  }
  const code = errnoOf(error);
  const meaning = code === undefined ? undefined : CONNECTION_CODES[code];
  if (meaning !== undefined) {
    return new Fault(meaning.code, `Cannot ${doing}: ${meaning.why ?? String(code)}`, {
      cause: error,
      hint: meaning.hint,
    });
  }
  if (error instanceof Error && code !== undefined && /CERT|TLS|SSL|VERIFY|EPROTO/.test(code)) {
    return new Fault(
      "failed_precondition",
      `Cannot ${doing}: no secure connection to the database: ${error.message}`,
      {
        cause: error,
        hint: "Set sslmode and sslrootcert in the database URL",
      },
    );
  }
  return Fault.from(error, `Cannot ${doing}`);
}

/** The SQLSTATE of an error that Postgres sent. */
export function errorCodeOf(error: unknown): string | undefined {
  return error instanceof postgres.PostgresError ? error.code : undefined;
}
