import assert from "node:assert/strict";
import { test } from "node:test";
import { registriesFrom } from "../../../src/config/registries.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { parseChallenges } from "../../../src/oci/registry-auth.ts";
import { endpointsOf, type RegistryHost } from "../../../src/oci/registry-endpoints.ts";
import { connectionFault, statusFault } from "../../../src/oci/registry-fault.ts";

function host(name: string, more: Partial<RegistryHost> = {}): RegistryHost {
  return { host: name, mirrors: [], insecure: false, username: undefined, password: undefined, ...more };
}

const urls = (registry: string, hosts: readonly RegistryHost[]) =>
  endpointsOf(registry, hosts).map(({ base }) => base.href);

void test("challenges of every spelling are read", () => {
  const cases: [string, [string, Record<string, string>][]][] = [
    [
      'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
      [
        [
          "bearer",
          { realm: "https://auth.example/token", service: "reg", scope: "repository:a/b:pull,push" },
        ],
      ],
    ],
    ['Basic realm="x"', [["basic", { realm: "x" }]]],
    ["BASIC realm=x", [["basic", { realm: "x" }]]],
    ["Basic", [["basic", {}]]],
    [
      'Basic realm="a, b", Bearer realm = "c" , service=d',
      [
        ["basic", { realm: "a, b" }],
        ["bearer", { realm: "c", service: "d" }],
      ],
    ],
    ['Bearer realm="a\\"b"', [["bearer", { realm: 'a"b' }]]],
    ["", []],
    ['realm="stray"', []],
    ['Bearer realm="open', [["bearer", { realm: "" }]]],
  ];
  for (const [header, expected] of cases) {
    const found = parseChallenges(header).map(({ scheme, params }) => [scheme, Object.fromEntries(params)]);
    assert.deepEqual(found.slice(0, expected.length), expected, header);
  }
});

void test("a hostile challenge is read in no time", () => {
  assert.ok(parseChallenges(`Bearer ${'a="b",'.repeat(10_000)}${"x ".repeat(10_000)}"`).length > 0);
});

void test("a registry is asked over https unless configured otherwise", () => {
  assert.deepEqual(urls("reg.example:5000", []), ["https://reg.example:5000/v2/"]);
  assert.deepEqual(urls("reg.example:5000", [host("reg.example:5000", { insecure: true })]), [
    "http://reg.example:5000/v2/",
  ]);
  assert.deepEqual(urls("reg.example", [host("other.example", { insecure: true })]), [
    "https://reg.example/v2/",
  ]);
  assert.deepEqual(urls("[::1]:5000", []), ["https://[::1]:5000/v2/"]);
});

void test("mirrors come first, in their order and below their paths", () => {
  const mirrors = [
    "https://one.example",
    "http://two.example:80/",
    "https://three.example/v2/hub/",
    "https://four.example/x",
  ];
  assert.deepEqual(urls("reg.example", [host("reg.example", { mirrors })]), [
    "https://one.example/v2/",
    "http://two.example/v2/",
    "https://three.example/v2/hub/",
    "https://four.example/x/v2/",
    "https://reg.example/v2/",
  ]);
});

void test("each server gets its own credentials and no other's", () => {
  const password = (text: string) => ({ reveal: () => text });
  const hosts = [
    host("reg.example", {
      mirrors: ["https://m.example", "https://n.example"],
      username: "a",
      password: password("1"),
    }),
    host("m.example", { username: "b", password: password("2") }),
  ];
  assert.deepEqual(
    endpointsOf("reg.example", hosts).map(({ name, credentials }) => [name, credentials?.username]),
    [
      ["m.example", "b"],
      ["n.example", undefined],
      ["reg.example", "a"],
    ],
  );
});

void test("the registries of a config file are taken as they are", () => {
  const mirrors = ["https://m.example"];
  const hosts = registriesFrom({ "reg.example": { mirrors, username: "a", password: "b" } }, "config.toml");
  const [mirror, origin] = endpointsOf("reg.example", hosts);
  assert.equal(mirror?.credentials, undefined);
  assert.deepEqual(origin?.credentials, { username: "a", password: "b" });
});

void test("a mirror that is no plain URL is refused without showing what is in it", () => {
  for (const mirror of [
    "reg.example",
    "ftp://x",
    "https://user:secret@x",
    "https://x/?a=secret",
    "//x",
    "",
  ]) {
    assert.throws(
      () => endpointsOf("reg.example", [host("reg.example", { mirrors: [mirror] })]),
      (error) => Fault.is(error, "invalid_argument") && !error.message.includes("secret"),
    );
  }
});

void test("statuses are told apart", () => {
  const code = (status: number) => statusFault(status, "reg", "pull x", "").code;
  assert.deepEqual([403, 404, 429, 500, 503, 418].map(code), [
    "permission_denied",
    "not_found",
    "unavailable",
    "unavailable",
    "unavailable",
    "failed_precondition",
  ]);
});

void test("the registry's words are shown, short and printable", () => {
  const body = JSON.stringify({
    errors: [{ code: "DENIED", message: `no\u001b[31m\nentry ${"x".repeat(500)}` }],
  });
  const { message } = statusFault(403, "reg", "pull x", body);
  assert.match(message, /\(DENIED: no \[31m entry x+\)$/);
  assert.ok(message.length < 300);
  assert.doesNotMatch(statusFault(502, "reg", "pull x", "<html>oops</html>").message, /oops/);
  assert.doesNotThrow(() => statusFault(500, "reg", "pull x", JSON.stringify({ errors: [null] })));
  assert.doesNotThrow(() => statusFault(500, "reg", "pull x", "null"));
});

void test("failures to connect are told apart", () => {
  const failed = (code: string, message = code) =>
    Object.assign(new TypeError("fetch failed"), { cause: Object.assign(new Error(message), { code }) });
  const code = (error: unknown) => connectionFault(error, "reg", "pull x").code;
  assert.equal(code(failed("ECONNREFUSED")), "unavailable");
  assert.equal(code(failed("ENOTFOUND")), "unavailable");
  assert.equal(code(failed("DEPTH_ZERO_SELF_SIGNED_CERT")), "failed_precondition");
  assert.equal(code(failed("CERT_HAS_EXPIRED")), "failed_precondition");
  assert.equal(code(failed("ERR_SSL_WRONG_VERSION_NUMBER", "wrong version number")), "failed_precondition");
  assert.match(
    connectionFault(failed("ECONNRESET"), "reg", "pull x").message,
    /reg does not answer \(ECONNRESET\)/,
  );
});
