import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { botResolvConf, parseResolvConf, readResolvConf } from "../../../src/cni/resolv-conf.ts";
import { Fault } from "../../../src/lib/fault.ts";

const RESOLVED = "/run/systemd/resolve/resolv.conf";
const ETC = "/etc/resolv.conf";

function files(resolved: string, etc: string) {
  return [
    { path: RESOLVED, config: parseResolvConf(resolved) },
    { path: ETC, config: parseResolvConf(etc) },
  ];
}

describe("resolv.conf of a bot", () => {
  test("names the real upstreams of systemd-resolved and not its stub", () => {
    const conf = botResolvConf(
      {},
      files(
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan",
        "nameserver 127.0.0.53\noptions edns0 trust-ad",
      ),
      [],
    );
    assert.equal(conf.source, RESOLVED);
    assert.deepEqual(conf.servers, ["192.0.2.1", "192.0.2.2"]);
    assert.equal(
      conf.text,
      "# Written by memoh for this bot; see network.nameservers.\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\n",
    );
  });

  test("falls to the host's own file when resolved's names no resolver of use", () => {
    const conf = botResolvConf({}, files("nameserver fe80::1%eth0\n", "nameserver 192.0.2.3"), []);
    assert.equal(conf.source, ETC);
    assert.deepEqual(conf.servers, ["192.0.2.3"]);
  });

  test("leaves out what a bot cannot reach and says why", () => {
    const conf = botResolvConf(
      { deny: ["10.0.0.0/8"] },
      files(
        "",
        `nameserver 127.0.0.53
nameserver 127.0.0.11
nameserver 0.0.0.0
nameserver ::1
nameserver fe80::1%eth0
nameserver 2001:db8::1
nameserver 169.254.169.254
nameserver 10.1.2.3
nameserver 192.0.2.10
nameserver nonsense
nameserver 192.0.2.20
nameserver 192.0.2.20`,
      ),
      ["192.0.2.10"],
    );
    assert.deepEqual(conf.servers, ["192.0.2.20"]);
    assert.deepEqual(Object.fromEntries(conf.dropped.map(({ server, why }) => [server, why])), {
      "127.0.0.53": "it is a stub on the host's own loopback",
      "127.0.0.11": "it is a stub on the host's own loopback",
      "0.0.0.0": "it is a stub on the host's own loopback",
      "::1": "bots have no IPv6",
      "fe80::1%eth0": "bots have no IPv6",
      "2001:db8::1": "bots have no IPv6",
      "169.254.169.254": "bots may not reach that range",
      "10.1.2.3": "bots may not reach that range",
      "192.0.2.10": "it is the host itself, which is closed to bots",
      nonsense: "it is not an address",
    });
  });

  test("takes configured resolvers over the host's, with the host's search domains", () => {
    const conf = botResolvConf(
      { configured: ["192.0.2.53"] },
      files("", "nameserver 192.0.2.1\nsearch a.example b.example"),
      [],
    );
    assert.equal(conf.source, "configured");
    assert.deepEqual(conf.servers, ["192.0.2.53"]);
    assert.match(conf.text, /^search a\.example b\.example$/m);
  });

  test("refuses configured resolvers that cannot work", () => {
    for (const server of ["127.0.0.1", "::1", "dns.example", "169.254.169.254", ""]) {
      assert.throws(
        () => botResolvConf({ configured: ["192.0.2.1", server] }, [], []),
        (error) => Fault.is(error, "invalid_argument") && /network\.nameservers/.test(error.hint ?? ""),
        server,
      );
    }
  });

  test("never asks the world by itself: without a resolver it says so", () => {
    const conf = botResolvConf({}, files("", "nameserver 127.0.0.1\nsearch lan"), []);
    assert.equal(conf.source, "none");
    assert.deepEqual(conf.servers, []);
    assert.doesNotMatch(conf.text, /^nameserver/m);
    assert.match(conf.text, /no resolver that a bot can reach/);
    assert.match(conf.text, /^search lan$/m);
  });

  test("names three resolvers at most, and no option that vouches for the way to them", () => {
    const servers = [1, 2, 3, 4].map((n) => `nameserver 192.0.2.${n}`).join("\n");
    const conf = botResolvConf({}, files("", `${servers}\noptions ndots:2 trust-ad\noptions timeout:1`), []);
    assert.equal(conf.servers.length, 3);
    assert.match(conf.text, /^options ndots:2 timeout:1$/m);
  });

  test("understands comments, blanks, tabs and the last of search and domain", () => {
    assert.deepEqual(
      parseResolvConf(
        "# x\n; nameserver 192.0.2.9\n\nnameserver\t192.0.2.1 \ndomain one.example\nsearch a b\r\nnameserver\n",
      ),
      { servers: ["192.0.2.1"], search: ["a", "b"], options: [] },
    );
    assert.deepEqual(parseResolvConf("search a b\ndomain one.example extra").search, ["one.example"]);
  });

  test("is read from this host", async () => {
    const conf = await readResolvConf();
    assert.match(conf.text, /^# Written by memoh/);
    assert.equal(conf.servers.length === 0, conf.source === "none");
  });
});
