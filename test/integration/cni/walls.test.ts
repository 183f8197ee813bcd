// What a bot can reach and who can reach it, with real namespaces, bridges and firewall rules.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { CLOSED, OPEN, Peer } from "../../support/network/peer.ts";
import { HOST_OUTSIDE, OUTSIDE, outside, type Sandbox, sandbox, sh } from "../../support/network/sandbox.ts";
import { onTestHost } from "../../support/network/test-host.ts";

const METADATA = "169.254.169.254";
const DENIED = "203.0.113.9";

await onTestHost(import.meta.filename, () => {
  describe("the walls around a bot", () => {
    const stack = new AsyncDisposableStack();
    let box: Sandbox;
    let other: Sandbox;
    let world: Peer & { readonly netns: string };
    let host: Peer;
    const bots: Record<string, { peer: Peer; ip: string; netns: string }> = {};

    async function bot(name: string, of: Sandbox) {
      const { ip, netnsPath } = await of.network.setup(name);
      const peer = stack.use(new Peer(netnsPath));
      await peer.listen(9090, "::");
      bots[name] = { peer, ip, netns: netnsPath };
    }
    const at = (name: string) => {
      const found = bots[name];
      assert.ok(found);
      return found;
    };
    /** Everything that must be closed, by what it is; all dialled at once. */
    async function reached(patience = CLOSED): Promise<string[]> {
      const { peer } = at("a");
      const dials: Record<string, Promise<{ open: boolean }>> = {
        "another bot": peer.dial(at("b").ip, 9090, patience),
        "a bot of another instance": peer.dial(at("c").ip, 9090, patience),
        "the host on the bridge": peer.dial(`${box.prefix}1`, 7000, patience),
        "the host on its other address": peer.dial(HOST_OUTSIDE, 7000, patience),
        "the metadata address": peer.dial(METADATA, 80, patience),
        "a denied range": peer.dial(DENIED, 80, patience),
        "a published port of the host": peer.dial(HOST_OUTSIDE, 5432, patience),
        "a bot from outside": world.dial(at("b").ip, 9090, patience),
      };
      const open: string[] = [];
      for (const [what, dial] of Object.entries(dials)) if ((await dial).open) open.push(what);
      return open;
    }

    before(async () => {
      box = stack.use(await sandbox({ deny: ["203.0.113.0/24"] }));
      other = stack.use(await sandbox());
      world = stack.use(await outside());
      host = stack.use(new Peer());
      await bot("a", box);
      await bot("b", box);
      await bot("c", other);
      await host.listen(7000, "::");
      // The outside answers for the metadata service and the denied range, and knows the way to bots.
      await sh(`ip -n ${world.netns.slice(11)} addr add ${METADATA}/32 dev lo
        ip -n ${world.netns.slice(11)} addr add ${DENIED}/32 dev lo
        ip route add 169.254.0.0/16 via ${OUTSIDE} && ip route add 203.0.113.0/24 via ${OUTSIDE}
        iptables -t nat -A PREROUTING -d ${HOST_OUTSIDE} -p tcp --dport 5432 -j DNAT --to-destination ${OUTSIDE}:80`);
      await world.listen(80);
    });
    after(async () => {
      await stack.disposeAsync();
    });

    test("the outside is open, and sees the host's address instead of the bot's", async () => {
      assert.deepEqual(await at("a").peer.dial(OUTSIDE, 80), { open: true, said: HOST_OUTSIDE });
    });

    test("the host reaches every bot and is seen as the gateway", async () => {
      assert.deepEqual(await host.dial(at("a").ip, 9090), { open: true, said: `${box.prefix}1` });
      assert.deepEqual(await host.dial(at("c").ip, 9090), { open: true, said: `${other.prefix}1` });
    });

    test("everything else is closed over IPv4", async () => {
      await sh(`ip -n ${world.netns.slice(11)} route add 10.77.0.0/16 via ${HOST_OUTSIDE}`);
      assert.deepEqual(await reached(), []);
    });

    test("each wall is what keeps it closed: without the rules all of it is open, and the check closes it again", async () => {
      await sh(`for i in ${box.instance} ${other.instance}; do
          for c in G P I; do iptables -F MEMOH-$c-$i; done
        done`);
      assert.equal(
        (await at("a").peer.dial(at("b").ip, 9090)).open,
        false,
        "isolated ports do not need the rules",
      );
      await sh(`for p in /sys/class/net/${box.bridge}/brif/*; do echo 0 > $p/isolated; done`);
      const open = await reached(OPEN);
      assert.deepEqual(open.sort(), [
        "a bot from outside",
        "a bot of another instance",
        "a denied range",
        "a published port of the host",
        "another bot",
        "the host on its other address",
        "the host on the bridge",
        "the metadata address",
      ]);
      await box.network.ensureHost();
      await other.network.ensureHost();
      assert.deepEqual(await reached(), []);
    });

    test("packets with a sender that is not the bot's subnet end at the guard", async () => {
      const dropped = async () =>
        Number((await sh(`iptables -nvxL MEMOH-G-${box.instance} 2`)).trim().split(/\s+/)[0]);
      const before = await dropped();
      const inside = `nsenter --net=${at("a").netns}`;
      await sh(`${inside} ip addr add 192.0.2.66/32 dev lo
        ${inside} ip route add ${OUTSIDE} via ${box.prefix}1 src 192.0.2.66`);
      const dialled = await at("a").peer.dial(OUTSIDE, 80, CLOSED);
      await sh(`${inside} ip route del ${OUTSIDE}; ${inside} ip addr del 192.0.2.66/32 dev lo`);
      assert.equal(dialled.open, false);
      assert.ok((await dropped()) > before);
    });

    test("where bridged packets pass the firewall too, nothing changes", async () => {
      const nf = "/proc/sys/net/bridge/bridge-nf-call-iptables";
      for (const value of [0, 1]) {
        await sh(`[ ! -e ${nf} ] || echo ${value} > ${nf}`);
        assert.deepEqual(await reached(), []);
        assert.equal((await host.dial(at("a").ip, 9090)).open, true);
        assert.equal((await at("a").peer.dial(OUTSIDE, 80)).open, true);
      }
    });

    test("a bot has no IPv6 address but ::1, and the bridge has none", async () => {
      assert.equal(await sh(`nsenter --net=${at("a").netns} ip -6 -br addr show scope link`), "");
      assert.equal(await sh(`ip -6 -br addr show dev ${box.bridge}`), "");
      assert.match(await sh(`nsenter --net=${at("a").netns} ip -6 -br addr show dev lo`), /::1\/128/);
    });

    test("a bot that got IPv6 nevertheless reaches neither bots nor the host by link-local addresses", async () => {
      for (const name of ["a", "b"]) {
        await sh(
          `nsenter --net=${at(name).netns} sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6'`,
        );
      }
      await sh(
        `echo 0 > /proc/sys/net/ipv6/conf/${box.bridge}/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/${box.bridge}/disable_ipv6`,
      );
      const linkLocal = async (where: string) =>
        /(fe80\S+)\//.exec(await sh(`${where} ip -6 -br addr show scope link`))?.[1] ?? "";
      const toBot = `${await linkLocal(`nsenter --net=${at("b").netns}`)}%eth0`;
      const toHost = `${/(fe80\S+)\//.exec(await sh(`ip -6 -br addr show dev ${box.bridge}`))?.[1] ?? ""}%eth0`;
      const both = async (patience: number) => {
        const { peer } = at("a");
        const [bot, host] = await Promise.all([
          peer.dial(toBot, 9090, patience),
          peer.dial(toHost, 7000, patience),
        ]);
        return [bot.open, host.open];
      };
      assert.deepEqual(await both(CLOSED), [false, false]);
      await sh(`ip6tables -F MEMOH-I-${box.instance}; ip6tables -F MEMOH-G-${box.instance}
        for p in /sys/class/net/${box.bridge}/brif/*; do echo 0 > $p/isolated; done`);
      assert.deepEqual(await both(OPEN), [true, true]);
      const found = (await box.network.ensureHost()).map(({ what }) => what);
      assert.ok(found.includes(`bridge ${box.bridge} had IPv6`), found.join("\n"));
      assert.deepEqual(await both(CLOSED), [false, false]);
    });
  });
});
