import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  cidrContains,
  cidrsOverlap,
  cidrText,
  ipv4Number,
  ipv4Text,
  parseCidr,
} from "../../../src/cni/cidr.ts";
import { isContainerId, namesOf } from "../../../src/cni/names.ts";

const base = { instance: "memoh", bridge: "memoh0", subnet: "10.88.0.0/16", runDir: "/run/memoh" };

describe("names of an instance", () => {
  test("hold the instance in each of them", () => {
    const names = namesOf(base);
    assert.equal(names.gateway, "10.88.0.1");
    assert.equal(names.netnsDir, "/run/memoh/netns");
    assert.equal(names.leaseDir, "/run/memoh/cni/memoh");
    assert.deepEqual(Object.values(names.chains), [
      "MEMOH-G-memoh",
      "MEMOH-P-memoh",
      "MEMOH-I-memoh",
      "MEMOH-N-memoh",
    ]);
  });

  test("fit iptables and stay apart however long the instance is", () => {
    const long = (end: string) => namesOf({ ...base, instance: `${"long-instance-".repeat(4)}${end}` });
    for (const chain of Object.values(long("a").chains)) assert.ok(chain.length <= 28, chain);
    assert.notEqual(long("a").chains.guard, long("b").chains.guard);
  });

  test("give the bridge a MAC that is its own, locally administered and the same every time", () => {
    const { mac } = namesOf(base);
    assert.match(mac, /^02(:[0-9a-f]{2}){5}$/);
    assert.equal(namesOf(base).mac, mac);
    assert.notEqual(namesOf({ ...base, instance: "other" }).mac, mac);
  });

  test("accept the ids containerd accepts", () => {
    for (const id of ["mcp-0f3b8a1e-5d5e-4b43-9a0c-1f1d6c9f2b11", "a", "a.b_c-d"])
      assert.ok(isContainerId(id), id);
    for (const id of ["", ".", "a/..", "a--b", "a-", "x".repeat(77)]) assert.ok(!isContainerId(id), id);
  });
});

describe("IPv4 ranges", () => {
  test("are read and printed", () => {
    for (const text of ["0.0.0.0/0", "10.88.0.0/16", "255.255.255.255/32", "192.0.2.128/25"]) {
      assert.equal(cidrText(parseCidr(text)), text);
    }
    assert.equal(cidrText(parseCidr("192.0.2.1")), "192.0.2.1/32");
    assert.equal(ipv4Text(ipv4Number("200.1.2.3") ?? 0), "200.1.2.3");
    assert.equal(ipv4Number("200.1.2"), undefined);
  });

  test("contain and overlap, above and below 128.0.0.0", () => {
    const range = parseCidr("192.168.4.0/22");
    assert.ok(cidrContains(range, ipv4Number("192.168.7.255") ?? 0));
    assert.ok(!cidrContains(range, ipv4Number("192.168.8.0") ?? 0));
    assert.ok(cidrsOverlap(range, parseCidr("192.168.6.0/24")));
    assert.ok(cidrsOverlap(parseCidr("0.0.0.0/0"), range));
    assert.ok(!cidrsOverlap(range, parseCidr("192.168.0.0/22")));
  });

  test("that are none are refused", () => {
    for (const text of [
      "",
      "10.0.0.0/",
      "10.0.0.0/33",
      "10.0.0.0/1/2",
      "10.0.0/8",
      "::/0",
      "10.0.0.1/8",
      " 10.0.0.0/8",
    ]) {
      assert.throws(() => parseCidr(text), { code: "invalid_argument" }, text);
    }
  });
});
