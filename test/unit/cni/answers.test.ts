import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseCidr } from "../../../src/cni/cidr.ts";
import { collidingRoute, parseRoutes } from "../../../src/cni/host-routes.ts";
import { parseInside } from "../../../src/cni/inside.ts";
import { isShared } from "../../../src/cni/netns.ts";
import { parseResult, parseVersions, pluginFault } from "../../../src/cni/plugin-answer.ts";

const SUBNET = parseCidr("10.88.0.0/16");

describe("what CNI plugins answer", () => {
  test("a result gives the address in the subnet and the host's end of the pair", () => {
    const result = {
      cniVersion: "1.0.0",
      interfaces: [
        { name: "memoh0", mac: "02:00:00:00:00:01" },
        { name: "veth12ab", mac: "02:00:00:00:00:02" },
        { name: "eth0", mac: "02:00:00:00:00:03", sandbox: "/run/memoh/netns/a" },
      ],
      ips: [{ address: "fd00::5/64" }, { interface: 2, address: "10.88.3.4/16", gateway: "10.88.0.1" }],
    };
    assert.deepEqual(parseResult(JSON.stringify(result), SUBNET, "memoh0"), {
      ip: "10.88.3.4",
      hostInterface: "veth12ab",
    });
  });

  test("a result without an address of ours is an error", () => {
    for (const text of [
      "",
      "[]",
      "null",
      '{"ips":[{"address":7}]}',
      '{"ips":[{"address":"10.89.0.2/16"}]}',
    ]) {
      assert.throws(() => parseResult(text, SUBNET, "memoh0"), { code: "internal" }, text);
    }
  });

  test("errors get the code a caller can act on", () => {
    for (const [msg, code] of [
      [
        "failed to allocate for range 0: no IP addresses available in range set: 10.88.0.1-10.88.0.6",
        "resource_exhausted",
      ],
      [
        "failed to allocate for range 0: 10.88.0.2 has been allocated to a, duplicate allocation is not allowed",
        "already_exists",
      ],
      ["container veth name provided (eth0) already exists", "already_exists"],
      [
        "failed to allocate for range 0: requested IP address 10.88.0.9 is not available in range set 10.88.0.1-10.88.0.6",
        "out_of_range",
      ],
      ['failed to find plugin "host-local" in path [/x]', "failed_precondition"],
      ["operation not permitted", "permission_denied"],
      ["anything else", "internal"],
    ] as const) {
      assert.equal(pluginFault("Cannot attach", 1, JSON.stringify({ code: 11, msg }), "").code, code, msg);
    }
    assert.match(pluginFault("Cannot attach", 2, "", "panic: no\n").message, /Cannot attach: panic: no$/);
    assert.match(pluginFault("Cannot attach", 137, "", "").message, /ended with 137/);
    assert.match(pluginFault("Cannot attach", 1, '{"msg":"a","details":"b"}', "").message, /a; b$/);
  });

  test("versions are read, and none from nonsense", () => {
    assert.deepEqual(parseVersions('{"supportedVersions":["0.4.0","1.0.0",7]}'), ["0.4.0", "1.0.0"]);
    for (const text of ["", "{}", '{"supportedVersions":"1.0.0"}']) assert.deepEqual(parseVersions(text), []);
  });
});

describe("what the kernel's tools answer", () => {
  test("a namespace is seen with its interface, address, peer and way out", () => {
    const addresses = [
      { ifindex: 1, ifname: "lo", flags: ["LOOPBACK", "UP", "LOWER_UP"], addr_info: [] },
      {
        ifindex: 2,
        link_index: 17,
        ifname: "eth0",
        flags: ["BROADCAST", "UP"],
        addr_info: [{ family: "inet", local: "10.88.0.4" }, { family: "inet6", local: "fe80::1" }, {}],
      },
    ];
    const routes = [{ dst: "default", gateway: "10.88.0.1", dev: "eth0" }];
    assert.deepEqual(parseInside(`${JSON.stringify(addresses)}\n${JSON.stringify(routes)}\n`), {
      loopbackUp: true,
      interface: { index: 2, peerIndex: 17, up: true, ipv4: ["10.88.0.4"] },
      gateway: "10.88.0.1",
    });
    assert.deepEqual(parseInside("[]\n[]\n"), {
      loopbackUp: false,
      interface: undefined,
      gateway: undefined,
    });
    assert.throws(() => parseInside("Object not found"), { code: "internal" });
  });

  test("routes collide when they share addresses, unless a router takes a wider range", () => {
    const header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const routes = parseRoutes(
      `${header}eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0000000A\t0100090A\t0003\t0\t0\t0\t000000FF\t0\t0\t0
memoh0\t0000580A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`,
    );
    assert.equal(routes.length, 4);
    assert.equal(collidingRoute(SUBNET, "memoh0", routes), undefined);
    assert.equal(collidingRoute(SUBNET, "other0", routes), "10.88.0.0/16 of memoh0");
    assert.equal(collidingRoute(parseCidr("192.0.2.0/26"), "memoh0", routes), "192.0.2.0/24 of eth0");
    assert.equal(collidingRoute(parseCidr("10.0.0.0/8"), "memoh0", routes), "10.0.0.0/8 of tun0");
    assert.deepEqual(parseRoutes(""), []);
  });

  test("a directory propagates when the mount on top of it does", () => {
    const root = "21 1 0:19 / / rw - ext4 /dev/vda rw";
    const run = "25 21 0:20 / /run rw,nosuid shared:5 - tmpfs tmpfs rw";
    assert.equal(isShared("/run/memoh/netns", `${root}\n${run}\n`), true);
    assert.equal(isShared("/runner", `${root}\n${run}\n`), false);
    assert.equal(isShared("/run/memoh/netns", root), false);
    const own = "40 21 0:19 /run/memoh/netns /run/memoh/netns rw shared:9 master:5 - ext4 /dev/vda rw";
    assert.equal(isShared("/run/memoh/netns", `${root}\n${own}`), true);
    assert.equal(isShared("/run/a b", `${root}\n41 21 0:19 / /run/a\\040b rw shared:3 - ext4 x rw`), true);
    assert.equal(isShared("/run/x", `${run}\n50 21 0:44 / /run rw - tmpfs tmpfs rw`), false, "mounted over");
  });
});
