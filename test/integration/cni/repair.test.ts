// Breaks the host's network and a bot's attachment in every way met so far, and sees each mended.
import assert from "node:assert/strict";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { ensureFirewall, IPV4_TOOLS, removeFirewall } from "../../../src/cni/firewall.ts";
import { ipv4Plan } from "../../../src/cni/firewall-rules.ts";
import { namesOf } from "../../../src/cni/names.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { Peer } from "../../support/network/peer.ts";
import { HOST_OUTSIDE, OUTSIDE, outside, type Sandbox, sandbox, sh } from "../../support/network/sandbox.ts";
import { onTestHost } from "../../support/network/test-host.ts";

await onTestHost(import.meta.filename, () => {
  let world: Awaited<ReturnType<typeof outside>>;
  let host: Peer;
  let box: Sandbox;

  before(async () => {
    host = new Peer();
    world = await outside();
    await world.listen(80);
  });
  after(async () => {
    await world[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
  });
  /** A network of its own for each test of a suite. */
  function ownSandbox() {
    beforeEach(async () => {
      box = await sandbox();
    });
    afterEach(async () => {
      await box[Symbol.asyncDispose]();
    });
  }

  /** A bot that is up: attached, with a process inside. */
  async function liveBot(id = "bot") {
    const attached = await box.network.setup(id);
    const peer = new Peer(attached.netnsPath);
    await peer.listen(9090);
    return { ...attached, id, peer, [Symbol.asyncDispose]: () => peer[Symbol.asyncDispose]() };
  }
  const whatIsFound = async () => (await box.network.ensureHost()).map(({ what }) => what);
  const leaseFile = (ip: string) => join(box.runDir, "cni", box.instance, ip);
  const inNetns = (path: string, script: string) => sh(`nsenter --net=${path} sh -ec '${script}'`);
  const portOf = async (path: string) => {
    const index = await inNetns(
      path,
      "cat /sys/class/net/eth0/iflink 2>/dev/null || true; ip -o link show eth0",
    );
    const peer = /eth0@if(\d+)/.exec(index)?.[1] ?? "";
    return await sh(`grep -lx ${peer} /sys/class/net/*/ifindex | cut -d/ -f5`);
  };
  async function assertAlive(bot: { peer: Peer; ip: string }) {
    assert.equal((await host.dial(bot.ip, 9090)).open, true, "the host reaches the bot");
    assert.deepEqual(await bot.peer.dial(OUTSIDE, 80), { open: true, said: HOST_OUTSIDE });
  }

  describe("the host's part, with a bot running", () => {
    const rule = (chain: string) => `MEMOH-${chain}-${box.instance}`;
    const breaks: Record<string, { script: () => string; found: () => RegExp }> = {
      "IP forwarding turned off": {
        script: () => "echo 0 > /proc/sys/net/ipv4/ip_forward",
        found: () => /IP forwarding was off/,
      },
      "a missing MASQUERADE": {
        script: () => `iptables -t nat -F ${rule("N")}`,
        found: () => new RegExp(`${rule("N")} had other rules`),
      },
      "a flushed nat table": {
        script: () => "iptables -t nat -F; iptables -t nat -X",
        found: () => new RegExp(`IPv4: firewall chain ${rule("N")} was missing`),
      },
      "a flushed filter table": {
        script: () => "iptables -F; iptables -X; ip6tables -F; ip6tables -X",
        found: () => new RegExp(`IPv6: firewall chain ${rule("G")} was missing`),
      },
      "FORWARD and INPUT policies of DROP, as Docker and ufw set them": {
        script: () =>
          `iptables -P FORWARD DROP; iptables -P INPUT DROP; iptables -F ${rule("P")}; iptables -F ${rule("I")}`,
        found: () => new RegExp(`${rule("P")} had other rules`),
      },
      "somebody's rules in front of ours": {
        script: () =>
          "iptables -I FORWARD -j DROP; iptables -I INPUT -j DROP; iptables -t nat -I POSTROUTING -j ACCEPT",
        found: () => new RegExp(`the jump from FORWARD to ${rule("G")} was not first`),
      },
      "jumps and rules that are there twice": {
        script: () =>
          `iptables -I FORWARD -j ${rule("G")}; iptables -A INPUT -j ${rule("I")}; iptables -A ${rule("I")} -i ${box.bridge} -j DROP`,
        found: () => new RegExp(`the jump from INPUT to ${rule("I")} was there twice`),
      },
      "rules in the wrong order": {
        script: () =>
          `iptables -D ${rule("I")} 1; iptables -A ${rule("I")} -i ${box.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
        found: () => new RegExp(`${rule("I")} had other rules`),
      },
      "a deleted bridge": {
        script: () => `ip link del ${box.bridge}`,
        found: () => new RegExp(`bridge ${box.bridge} was missing`),
      },
      "a bridge that is down and without its address": {
        script: () => `ip link set ${box.bridge} down; ip addr flush dev ${box.bridge}`,
        found: () => /was down/,
      },
      "a bridge with a stranger's address": {
        script: () => `ip addr add 10.99.9.1/24 dev ${box.bridge}`,
        found: () => /had the address 10\.99\.9\.1\/24/,
      },
      "a port off the bridge": {
        script: () => `for p in $(ls /sys/class/net/${box.bridge}/brif); do ip link set $p nomaster; done`,
        found: () => /was off the bridge \(bot\)/,
      },
      "a port that is down and open to its neighbours": {
        script: () =>
          `for p in $(ls /sys/class/net/${box.bridge}/brif); do ip link set $p down; bridge link set dev $p isolated off; done`,
        found: () => /was not isolated \(bot\)/,
      },
    };
    let shared: Sandbox;
    let bot: Awaited<ReturnType<typeof liveBot>>;
    before(async () => {
      shared = await sandbox();
      box = shared;
      bot = await liveBot();
    });
    beforeEach(() => {
      box = shared;
    });
    after(async () => {
      await bot[Symbol.asyncDispose]();
      await shared[Symbol.asyncDispose]();
    });
    afterEach(async () => {
      await sh("iptables -P FORWARD ACCEPT; iptables -P INPUT ACCEPT; iptables -F; iptables -t nat -F");
    });

    for (const [what, { script, found }] of Object.entries(breaks)) {
      test(`${what} is found and repaired`, async () => {
        await box.network.ensureHost();
        await sh(script());
        assert.match((await whatIsFound()).join("\n"), found());
        await assertAlive(bot);
        assert.deepEqual(await whatIsFound(), [], "the second look finds nothing");
        assert.equal((await box.network.setup(bot.id)).ip, bot.ip);
      });
    }

    test("other people's rules and chains stay as they were", async () => {
      await sh("iptables -N THEIRS; iptables -A THEIRS -s 192.0.2.7 -j DROP; iptables -A FORWARD -j THEIRS");
      const theirs = () => sh("iptables-save | grep -v MEMOH | grep -v '^#'");
      const before = await theirs();
      await box.network.ensureHost();
      await sh(`iptables -F ${rule("G")}; iptables -D FORWARD -j ${rule("P")}`);
      await box.network.ensureHost();
      assert.equal((await theirs()).replaceAll(/^:.*$/gm, ""), before.replaceAll(/^:.*$/gm, ""));
      await box.network.teardownHost();
      assert.equal(await sh("iptables-save | grep -c MEMOH || true"), "0");
      await sh("iptables -F FORWARD; iptables -F THEIRS; iptables -X THEIRS");
    });

    test("the same rules hold in the legacy tables", async () => {
      const tools = {
        family: "IPv4",
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
      } as const;
      const names = namesOf({
        instance: box.instance,
        bridge: box.bridge,
        subnet: "10.88.0.0/16",
        runDir: "/run/x",
      });
      const plan = ipv4Plan(names, []);
      assert.equal((await ensureFirewall(plan, tools)).length, 8);
      assert.deepEqual(await ensureFirewall(plan, tools), []);
      await sh(`iptables-legacy -I FORWARD -j ACCEPT; iptables-legacy -D ${rule("G")} 1`);
      assert.equal((await ensureFirewall(plan, tools)).length, 3);
      await removeFirewall(plan, tools);
      assert.equal(await sh("iptables-legacy-save | grep -c MEMOH || true"), "0");
      await sh("iptables-legacy -F FORWARD");
      assert.notDeepEqual(IPV4_TOOLS, tools);
    });
  });

  describe("one bot's attachment", () => {
    ownSandbox();
    test("a bridge whose MAC went with its last port is given one, and can be attached to", async () => {
      await sh(`ip link add ${box.bridge} type bridge
        ip link add mtv0 type veth peer name mtv1; ip link set mtv0 master ${box.bridge}; ip link del mtv0`);
      assert.equal(await readMac(box.bridge), "00:00:00:00:00:00");
      assert.match((await whatIsFound()).join("\n"), new RegExp(`bridge ${box.bridge} had no MAC address`));
      const mac = await readMac(box.bridge);
      await box.network.setup("bot");
      await box.network.remove("bot");
      assert.equal(await readMac(box.bridge), mac, "the MAC does not go with the last port any more");
      assert.match(mac, /^02:/);
    });

    test("a namespace that lost its name while a bot lives in it is named again, and the bot notices nothing", async () => {
      await using bot = await liveBot();
      const inode = await sh(`stat -c %i ${bot.netnsPath}`);
      await sh(`umount ${bot.netnsPath}`);
      assert.equal(await box.network.inspect(bot.id), undefined);
      assert.deepEqual(await box.network.setup(bot.id), { ip: bot.ip, netnsPath: bot.netnsPath });
      assert.equal(await sh(`stat -c %i ${bot.netnsPath}`), inode);
      await assertAlive(bot);
    });

    test("an unmounted namespace in which nothing lives is made anew with the same address", async () => {
      const first = await box.network.setup("bot");
      await sh(`umount ${first.netnsPath}`);
      assert.deepEqual(await box.network.setup("bot"), first);
      await using peer = new Peer(first.netnsPath);
      await peer.listen(9090);
      await assertAlive({ peer, ip: first.ip });
    });

    test("a deleted port is made anew around the running bot, which keeps its address", async () => {
      await using bot = await liveBot();
      await sh(`ip link del ${await portOf(bot.netnsPath)}`);
      assert.equal((await box.network.setup(bot.id)).ip, bot.ip);
      await assertAlive(bot);
    });

    test("a leftover eth0 without an address does not stop the setup", async () => {
      const first = await box.network.setup("bot");
      await inNetns(first.netnsPath, "ip addr flush dev eth0; ip link set lo down");
      await rm(leaseFile(first.ip));
      const second = await box.network.setup("bot");
      await using peer = new Peer(second.netnsPath);
      await peer.listen(9090);
      await assertAlive({ peer, ip: second.ip });
      assert.match(await inNetns(second.netnsPath, "ip -br link show lo"), /UP/);
    });

    test("an eth0 of somebody else in a namespace of ours makes way", async () => {
      const { netnsPath } = await box.network.setup("bot");
      await inNetns(netnsPath, "ip link del eth0; ip link add eth0 type veth peer name eth1");
      const { ip } = await box.network.setup("bot");
      assert.match(await inNetns(netnsPath, "ip -br -4 addr show eth0"), new RegExp(`${ip}/`));
    });

    test("a stale lease of the same bot, with everything else gone, is used again", async () => {
      const first = await box.network.setup("bot");
      await sh(`umount ${first.netnsPath}; rm ${first.netnsPath}`);
      assert.deepEqual(await box.network.setup("bot"), first);
      assert.deepEqual(await box.network.list(), ["bot"]);
    });

    test("several leases of one bot end as one", async () => {
      const first = await box.network.setup("bot");
      await writeFile(leaseFile(`${box.prefix}77`), "bot\r\neth0");
      await inNetns(first.netnsPath, "ip link del eth0");
      const { ip } = await box.network.setup("bot");
      const held = await sh(`grep -l '^bot' ${leaseFile("*")}`);
      assert.equal(held, leaseFile(ip));
    });

    test("a lost lease is put back", async () => {
      await using bot = await liveBot();
      await rm(leaseFile(bot.ip));
      assert.equal(await box.network.inspect(bot.id), undefined);
      assert.equal((await box.network.setup(bot.id)).ip, bot.ip);
      assert.equal((await readFile(leaseFile(bot.ip), "utf8")).split("\r\n")[0], bot.id);
      await assertAlive(bot);
    });

    test("all leases lost: whoever comes first has the address, and nobody has none", async () => {
      await using bot = await liveBot();
      await sh(`rm -r ${leaseFile("")}`);
      const other = await box.network.setup("other");
      const again = await box.network.setup(bot.id);
      assert.notEqual(again.ip, other.ip);
      await assertAlive({ ...bot, ip: again.ip });
    });

    test("an address that is leased to another bot by now is given up", async () => {
      const first = await box.network.setup("bot");
      await writeFile(leaseFile(first.ip), "other\r\neth0");
      const second = await box.network.setup("bot");
      assert.notEqual(second.ip, first.ip);
      assert.deepEqual(await box.network.list(), ["bot", "other"]);
    });

    test("a port that lost its tag is known again", async () => {
      const first = await box.network.setup("bot");
      const port = await portOf(first.netnsPath);
      await sh(`ip link set dev ${port} alias ''`);
      assert.deepEqual(await box.network.setup("bot"), first);
      assert.match(
        await sh(`cat /sys/class/net/${port}/ifalias`),
        new RegExp(`^memoh:${box.instance}/bot#\\d+$`),
      );
    });

    test("a bot with a subnet of before is moved to the one of now", async () => {
      const first = await box.network.setup("bot");
      const moved = box.again({ subnet: "10.78.0.0/24" });
      const second = await moved.setup("bot");
      assert.match(second.ip, /^10\.78\.0\./);
      assert.notEqual(second.ip, first.ip);
      assert.equal(await sh(`ip -br -4 addr show dev ${box.bridge} | wc -w`), "3");
    });
  });

  describe("plugins that fail", () => {
    ownSandbox();
    let dir: string;
    beforeEach(async () => {
      dir = await mkdtemp(join(tmpdir(), "memoh-cni-plugins-"));
      await sh(
        `ln -s $(dirname $(ls /usr/lib/cni/bridge /opt/cni/bin/bridge 2>/dev/null | head -1))/host-local ${dir}/`,
      );
    });
    afterEach(async () => {
      await rm(dir, { recursive: true, force: true });
    });
    /** A bridge plugin that runs the script first and becomes the real one when that does not exit. */
    async function plugin(script: string) {
      const real = await sh("ls /usr/lib/cni/bridge /opt/cni/bin/bridge 2>/dev/null | head -1");
      const text = `#!/bin/sh\n${script}\nexec ${real}\n`;
      await writeFile(join(dir, "bridge"), text);
      await chmod(join(dir, "bridge"), 0o755);
      return box.again({ pluginDir: dir });
    }

    test("a DEL that fails blocks neither the next ADD nor a removal", async () => {
      const network = await plugin(
        `[ "$CNI_COMMAND" != DEL ] || { echo '{"code":11,"msg":"broken"}'; exit 1; }`,
      );
      const first = await network.setup("bot");
      await inNetns(first.netnsPath, "ip route del default");
      assert.deepEqual(await network.setup("bot"), first);
      await network.remove("bot");
      assert.deepEqual(await network.list(), []);
      assert.equal(await sh(`ls /sys/class/net/${box.bridge}/brif`), "");
      assert.notEqual((await network.setup("bot")).ip, "");
    });

    test("an eth0 that no DEL removes makes way all the same", async () => {
      const network = await plugin(`[ "$CNI_COMMAND" != DEL ] || exit 1`);
      const { netnsPath } = await network.setup("bot");
      await inNetns(netnsPath, "ip link del eth0; ip link add eth0 type veth peer name eth1");
      const { ip } = await network.setup("bot");
      assert.match(await inNetns(netnsPath, "ip -br -4 addr show eth0"), new RegExp(`${ip}/`));
    });

    test("an ADD that died half-way is followed by one that works", async () => {
      const network = await plugin(
        `[ "$CNI_COMMAND" != ADD ] || [ -e ${dir}/once ] || { touch ${dir}/once; $(dirname $(readlink -f ${dir}/host-local))/bridge; kill -9 $$; }`,
      );
      await assert.rejects(network.setup("bot"), (error) => Fault.is(error, "internal"));
      assert.deepEqual(await network.list(), [], "a failed setup leaves nothing");
      assert.notEqual((await network.setup("bot")).ip, "");
    });

    test("an answer without an address is an error and not an empty address", async () => {
      for (const answer of [
        "{}",
        "not json",
        '{"ips":[{"address":"192.0.2.1/24"}]}',
        '{"ips":"x","interfaces":4}',
        "",
      ]) {
        const network = await plugin(`[ "$CNI_COMMAND" != ADD ] || { printf %s '${answer}'; exit 0; }`);
        await assert.rejects(network.setup("bot"), /gave no address in/);
        assert.deepEqual(await network.list(), []);
      }
    });

    test("a plugin that hangs is killed with what it started when the caller gives up", async () => {
      const network = await plugin(
        `[ "$CNI_COMMAND" != ADD ] || { sleep 1000 & echo $! > ${dir}/pid; wait; }`,
      );
      await network.ensureHost();
      const controller = new AbortController();
      const setup = network.setup("bot", { signal: controller.signal });
      const pid = await sh(`until [ -s ${dir}/pid ]; do sleep 0.02; done; cat ${dir}/pid`);
      controller.abort(new Fault("cancelled", "enough"));
      await assert.rejects(setup, (error) => Fault.is(error, "cancelled"));
      assert.match(await sh(`cat /proc/${pid}/stat 2>/dev/null || echo gone`), /gone|\) Z /);
      assert.deepEqual(await network.list(), []);
    });

    test("missing plugins are named with their package, and the walls stand nevertheless", async () => {
      const network = box.again({ pluginDir: join(dir, "nowhere") });
      const missing = (error: unknown) =>
        Fault.is(error, "failed_precondition") && /containernetworking-plugins/.test(error.hint ?? "");
      await assert.rejects(network.ensureHost(), missing);
      await assert.rejects(network.setup("bot"), missing);
      assert.match(await sh("iptables-save"), new RegExp(`MEMOH-G-${box.instance}`));
      assert.deepEqual(await network.list(), []);
    });

    test("plugins that speak only versions we do not are refused with what they speak", async () => {
      const network = await plugin(
        `[ "$CNI_COMMAND" != VERSION ] || { echo '{"supportedVersions":["9.9.9"]}'; exit 0; }`,
      );
      await assert.rejects(
        network.setup("bot"),
        (error) => Fault.is(error, "failed_precondition") && /speaks CNI 9\.9\.9/.test(error.message),
      );
    });

    test("plugins that speak 0.4.0 at most are spoken to in that", async () => {
      const network = await plugin(
        `[ "$CNI_COMMAND" != VERSION ] || { echo '{"supportedVersions":["0.3.1","0.4.0"]}'; exit 0; }
[ "$CNI_COMMAND" != ADD ] || { tee ${dir}/conf | $(dirname $(readlink -f ${dir}/host-local))/bridge; exit; }`,
      );
      assert.notEqual((await network.setup("bot")).ip, "");
      assert.match(await readFile(join(dir, "conf"), "utf8"), /"cniVersion":"0\.4\.0"/);
    });

    test("a removal works without any plugin", async () => {
      await box.network.setup("bot");
      const network = box.again({ pluginDir: join(dir, "nowhere") });
      await network.remove("bot");
      assert.deepEqual(await network.list(), []);
      assert.equal(await sh(`ls /sys/class/net/${box.bridge}/brif`), "");
    });
  });
});

async function readMac(bridge: string): Promise<string> {
  return (await readFile(`/sys/class/net/${bridge}/address`, "latin1")).trim();
}
