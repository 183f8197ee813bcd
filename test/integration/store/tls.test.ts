// A Postgres over TCP with TLS and a password, as an outside database is.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { mustRun } from "../../../src/lib/command.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { openStore } from "../../../src/store/open-store.ts";
import { findPrivatePostgres, openPrivatePostgres } from "../../../src/store/private-postgres.ts";
import { execute, FAST_SETTINGS } from "../../support/postgres.ts";

const PASSWORD = "p@ss:w/o?r#d%20 &=+é\\'\"";

describe("an outside database", () => {
  let dataDir = "";
  let host = "";

  const url = (password: string, query: string) =>
    `postgres://${encodeURIComponent("us:er")}:${encodeURIComponent(password)}@${host}/memoh?${query}`;

  async function ping(database: string): Promise<void> {
    await using store = await openStore({ database, namespace: "x", migrate: false, log: silentLogger() });
    await store.ping();
  }

  before(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "memoh-pg-tls-"));
    // An address of our own, so that the port is free.
    host = `127.${randomInt(1, 255)}.${randomInt(0, 255)}.${randomInt(1, 255)}`;
    const [key, cert, hba] = ["key.pem", "cert.pem", "hba.conf"].map((name) => join(dataDir, name)) as [
      string,
      string,
      string,
    ];
    const request = [
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-days",
      "2",
    ];
    const subject = ["-subj", "/CN=db", "-addext", `subjectAltName=IP:${host},DNS:db.test`];
    for (const [keyFile, certFile] of [
      [key, cert],
      [join(dataDir, "other-key.pem"), join(dataDir, "other.pem")],
    ] as const) {
      await mustRun(["openssl", "req", ...request, ...subject, "-keyout", keyFile, "-out", certFile]);
    }
    await writeFile(hba, "local all all peer map=memoh\nhostssl all all 127.0.0.0/8 scram-sha-256\n");
    await mustRun(["chown", "postgres:postgres", key, hba]);
    const postgres = await openPrivatePostgres({
      dataDir,
      log: silentLogger(),
      settings: {
        ...FAST_SETTINGS,
        listen_addresses: host,
        ssl: "on",
        ssl_cert_file: cert,
        ssl_key_file: key,
        hba_file: hba,
      },
    });
    await execute(
      postgres.target,
      `create role "us:er" login superuser password '${PASSWORD.replaceAll("'", "''")}'`,
    );
    await using store = await openStore({
      database: postgres.target,
      namespace: "x",
      migrate: true,
      log: silentLogger(),
    });
    await store.ping();
  });

  after(async () => {
    await (await findPrivatePostgres({ dataDir }))?.stop();
    await rm(dataDir, { recursive: true });
  });

  it("is reached with a password of any characters, with TLS by default", async () => {
    await ping(url(PASSWORD, ""));
    await ping(url(PASSWORD, "sslmode=require"));
  });

  it("is verified when asked, against the given certificates", async () => {
    for (const mode of ["verify-ca", "verify-full"]) {
      await ping(
        url(PASSWORD, `sslmode=${mode}&sslrootcert=${encodeURIComponent(join(dataDir, "cert.pem"))}`),
      );
      for (const query of [
        `sslmode=${mode}`,
        `sslmode=${mode}&sslrootcert=${encodeURIComponent(join(dataDir, "other.pem"))}`,
      ]) {
        await assert.rejects(ping(url(PASSWORD, query)), (error: unknown) => {
          assert.ok(Fault.is(error, "failed_precondition"), String(error));
          assert.match(error.message, /no secure connection/);
          assert.match(error.hint ?? "", /sslrootcert/);
          return true;
        });
      }
    }
  });

  it("refuses a wrong password and a connection in the clear, and says what to check", async () => {
    for (const database of [url("wrong", ""), url(PASSWORD, "sslmode=disable")]) {
      await assert.rejects(ping(database), (error: unknown) => {
        assert.ok(Fault.is(error, "failed_precondition"), String(error));
        assert.match(error.hint ?? "", /Check user, password and database/);
        assert.doesNotMatch(error.message, /wrong|p@ss/);
        return true;
      });
    }
  });
});
