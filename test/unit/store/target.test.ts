import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { Fault } from "../../../src/lib/fault.ts";
import { databaseTarget, describeTarget, parseDatabaseUrl } from "../../../src/store/target.ts";

const NASTY = "p@ss:w/o?r#d%20 &=+é\\'\"";

describe("database URLs", () => {
  it("reads every part, percent-decoded", () => {
    const password = encodeURIComponent(NASTY);
    const target = parseDatabaseUrl(`postgres://us%40er:${password}@db.example:6543/my%2Fdb?sslmode=require`);
    assert.deepEqual(
      [target.host, target.port, target.user, target.password(), target.database, target.tls],
      ["db.example", 6543, "us@er", NASTY, "my/db", "require"],
    );
  });

  it("takes parts as they are, without any escaping", () => {
    const target = databaseTarget({ host: "h", user: NASTY, password: NASTY, database: NASTY });
    assert.deepEqual([target.user, target.password(), target.database], [NASTY, NASTY, NASTY]);
  });

  it("keeps a plus sign in a password", () => {
    assert.equal(parseDatabaseUrl("postgres://u:a+b@h/d").password(), "a+b");
    assert.equal(parseDatabaseUrl("postgres://u@h/d?password=a+b").password(), "a+b");
  });

  it("reads a socket directory from the host parameter or an encoded host, and speaks no TLS over it", () => {
    for (const url of ["postgres://u@/d?host=/run/pg&sslmode=require", "postgres://u@%2Frun%2Fpg/d"]) {
      const target = parseDatabaseUrl(url);
      assert.deepEqual([target.host, target.tls], ["/run/pg", "disable"]);
    }
  });

  it("fills in what libpq would", () => {
    const target = parseDatabaseUrl("postgresql://");
    assert.deepEqual([target.host, target.port], ["/var/run/postgresql", 5432]);
    assert.equal(target.database, target.user);
    assert.equal(parseDatabaseUrl("postgres://h").tls, "prefer");
  });

  it("reads an IPv6 address with and without a port", () => {
    assert.deepEqual(
      [parseDatabaseUrl("postgres://u@[::1]:5/d").host, parseDatabaseUrl("postgres://u@[::1]:5/d").port],
      ["::1", 5],
    );
    assert.equal(parseDatabaseUrl("postgres://u@[::1]/d").port, 5432);
  });

  for (const [what, url] of [
    ["another scheme", "mysql://u:geheim@h/d"],
    ["a slash in the password", "postgres://u:ge/heim@h/d"],
    ["a question mark in the password", "postgres://u:ge?heim@h/d"],
    ["a hash in the password", "postgres://u:ge#heim@h/d"],
    ["a percent sign in the password", "postgres://u:ge%heim@h/d"],
    ["an unknown parameter", "postgres://u:geheim@h/d?geheim=1"],
    ["an unknown sslmode", "postgres://u:geheim@h/d?sslmode=maybe"],
    ["a port out of range", "postgres://u:geheim@h:99999/d"],
    ["a port that is no number", "postgres://u:geheim@h:geheim/d"],
    ["several hosts", "postgres://u:geheim@a,b/d"],
    ["a NUL", "postgres://u:geheim%00@h/d"],
  ] as const) {
    it(`refuses ${what} without showing the URL`, () => {
      assert.throws(
        () => parseDatabaseUrl(url),
        (error: unknown) => {
          assert.ok(Fault.is(error, "invalid_argument"));
          assert.match(error.message, /^Cannot read the database URL: .*[^.]$/);
          assert.doesNotMatch(inspect(error, { depth: 9 }).replace(/\n {4}at .*/g, ""), /heim/);
          return true;
        },
      );
    });
  }

  it("shows a target without its password, however it is printed", () => {
    const target = databaseTarget({ host: "h", user: "u", password: "geheim", database: "d" });
    for (const text of [describeTarget(target), JSON.stringify(target), inspect(target)]) {
      assert.doesNotMatch(text, /geheim/);
    }
    assert.equal(describeTarget(target), "postgres://u@h:5432/d");
  });
});
