// The life of attachments: made once, kept, taken away, by many at a time and through crashes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { type Sandbox, sandbox, sh } from "../../support/network/sandbox.ts";
import { onTestHost } from "../../support/network/test-host.ts";

await onTestHost(import.meta.filename, () => {
  let box: Sandbox;
  beforeEach(async () => {
    box = await sandbox();
  });
  afterEach(async () => {
    await box[Symbol.asyncDispose]();
  });
  const ports = async () => (await sh(`ls /sys/class/net/${box.bridge}/brif`)).split("\n").filter(Boolean);
  const inode = async (path: string) => await sh(`stat -c %i ${path}`);
  /** Everything an instance can leave behind. */
  async function remains(): Promise<string> {
    return await sh(`ls /sys/class/net | grep -v -x lo || true
      grep -o ' ${box.runDir}/[^ ]*' /proc/self/mountinfo || true
      find ${box.runDir} -mindepth 1
      iptables-save | grep MEMOH || true; ip6tables-save | grep MEMOH || true`);
  }

  describe("an attachment", () => {
    test("is made whole: address, default route, loopback, an isolated port", async () => {
      const { ip, netnsPath } = await box.network.setup("bot");
      assert.equal(netnsPath, box.network.netnsPathOf("bot"));
      const seen = await sh(
        `nsenter --net=${netnsPath} sh -c 'ip -br -4 addr; ip route; ip -br link show lo'`,
      );
      assert.match(seen, new RegExp(`eth0@if\\d+ +UP +${ip}/24`));
      assert.match(seen, new RegExp(`default via ${box.prefix}1 dev eth0`));
      assert.match(seen, /127\.0\.0\.1/);
      const [port = ""] = await ports();
      assert.match(await sh(`bridge -d link show dev ${port}`), /isolated on/);
    });

    test("is seen by a daemon whose mount namespace is older than it", async () => {
      await box.network.ensureHost();
      const daemon = spawn("unshare", [
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        "echo up; exec sleep 60",
      ]);
      try {
        await once(daemon.stdout, "data");
        const { netnsPath } = await box.network.setup("bot");
        assert.equal(await sh(`nsenter --mount --target ${daemon.pid} stat -f -c %T ${netnsPath}`), "nsfs");
        await box.network.remove("bot");
        assert.equal(await sh(`grep -c ${netnsPath} /proc/${daemon.pid}/mountinfo || true`), "0");
      } finally {
        daemon.kill("SIGKILL");
      }
    });

    test("takes no larger packets than the host's way out does", async () => {
      await sh(`ip link add mtr type veth peer name mtr2; ip link set mtr2 up; ip link set mtr mtu 1400 up
        ip addr add 198.51.100.9/24 dev mtr; ip route add default via 198.51.100.10`);
      const { netnsPath } = await box.network.setup("bot");
      assert.match(await sh(`nsenter --net=${netnsPath} ip link show dev eth0`), /mtu 1400 /);
      await sh("ip link del mtr");
    });

    test("that is live is returned untouched, by a restarted host too", async () => {
      const first = await box.network.setup("bot");
      const before = [await inode(first.netnsPath), await ports()];
      assert.deepEqual(await box.network.setup("bot"), first);
      assert.deepEqual(await box.again().setup("bot"), first);
      assert.deepEqual(await box.again().inspect("bot"), first);
      assert.deepEqual([await inode(first.netnsPath), await ports()], before);
    });

    test("asked for by many at once is made once", async () => {
      const results = await Promise.all(
        Array.from({ length: 8 }, async () => await box.network.setup("bot")),
      );
      assert.equal(new Set(results.map(({ ip }) => ip)).size, 1);
      assert.equal((await ports()).length, 1);
    });

    test("is not made when its setup is cancelled before its turn", async () => {
      await box.network.ensureHost();
      const reason = new Fault("cancelled", "enough");
      await assert.rejects(box.network.setup("bot", { signal: AbortSignal.abort(reason) }), reason);
      assert.deepEqual(await box.network.list(), []);
    });

    test("leaves nothing behind when it is removed, and removing nothing is success", async () => {
      const { netnsPath } = await box.network.setup("bot");
      await box.network.remove("bot");
      await box.network.remove("bot");
      await box.network.remove("never-was");
      assert.deepEqual(await ports(), []);
      assert.deepEqual(await box.network.list(), []);
      assert.equal(await box.network.inspect("bot"), undefined);
      assert.equal(
        await sh(`ls ${join(box.runDir, "cni", box.instance)} | grep -c ${box.prefix} || true`),
        "0",
      );
      assert.equal(await sh(`ls ${netnsPath} 2>/dev/null || echo gone`), "gone");
    });

    test("is looked at without changing anything", async () => {
      assert.equal(await box.network.inspect("bot"), undefined);
      assert.deepEqual(await box.network.list(), []);
      assert.equal(await remains(), "");
    });
  });

  describe("many attachments", () => {
    test("set up at once have an address each and are all healthy", async () => {
      const ids = Array.from({ length: 16 }, (_, index) => `bot-${index}`);
      const results = await Promise.all(ids.map(async (id) => await box.network.setup(id)));
      assert.equal(new Set(results.map(({ ip }) => ip)).size, 16);
      assert.deepEqual(await Promise.all(ids.map(async (id) => await box.network.inspect(id))), results);
      assert.deepEqual(await box.network.list(), ids.sort());
    });

    test("come and go at once without a trace", async () => {
      const ids = Array.from({ length: 6 }, (_, index) => `bot-${index}`);
      await Promise.all(
        ids.map(async (id) => {
          await box.network.setup(id);
          const [again] = await Promise.all([
            box.network.setup(id),
            box.network.remove(id),
            box.network.setup(id),
          ]);
          assert.notEqual(again.ip, "");
          await box.network.remove(id);
        }),
      );
      assert.deepEqual(await box.network.list(), []);
      assert.deepEqual(await ports(), []);
    });

    test("of two instances set up at the same moment do not disturb each other", async () => {
      await using other = await sandbox();
      const both = [box, other].flatMap(({ network }) => [network.setup("a"), network.setup("b")]);
      assert.equal(new Set((await Promise.all(both)).map(({ ip }) => ip)).size, 4);
      assert.deepEqual(await box.network.ensureHost(), []);
      assert.deepEqual(await other.network.ensureHost(), []);
      await other.network.reclaim(new Set());
      assert.deepEqual(await box.network.list(), ["a", "b"], "one's sweep leaves the other's alone");
    });

    test("more than the subnet holds are refused until one goes", async () => {
      const small = box.again({ subnet: "10.79.0.0/29" });
      for (let index = 0; index < 5; index++) await small.setup(`bot-${index}`);
      await assert.rejects(
        small.setup("one-more"),
        (error) => Fault.is(error, "resource_exhausted") && /network\.subnet/.test(error.hint ?? ""),
      );
      assert.equal((await small.list()).length, 5);
      await small.remove("bot-3");
      assert.notEqual((await small.setup("one-more")).ip, "");
    });
  });

  describe("the sweep", () => {
    test("frees what is not live and keeps what is", async () => {
      const kept = await box.network.setup("live");
      await box.network.setup("dead");
      await box.network.setup("half");
      await sh(`umount ${box.network.netnsPathOf("half")}; rm ${box.network.netnsPathOf("half")}`);
      const leases = join(box.runDir, "cni", box.instance);
      await writeFile(join(leases, `${box.prefix}200`), "only-a-lease\r\neth0");
      await writeFile(join(leases, `${box.prefix}201`), "");
      await writeFile(join(leases, `${box.prefix}202`), "");
      await utimes(join(leases, `${box.prefix}201`), 0, 0);
      const found = await box.network.reclaim(new Set(["live"]));
      assert.deepEqual(
        found.map(({ what, repaired }) => `${what} ${repaired}`),
        [
          ...["dead", "half", "only-a-lease"].map(
            (id) => `the network attachment of ${id} was left over true`,
          ),
          `the address ${box.prefix}201 was leased to nobody true`,
        ],
      );
      assert.deepEqual(await box.network.list(), ["live"]);
      assert.deepEqual(await box.network.inspect("live"), kept);
      assert.deepEqual((await readdir(leases)).filter((name) => name.startsWith(box.prefix)).sort(), [
        kept.ip,
        `${box.prefix}202`,
      ]);
      assert.deepEqual(await box.network.reclaim(new Set(["live"])), []);
    });

    test("asks again when a container's turn has come, so that one set up meanwhile is kept", async () => {
      await box.network.setup("bot");
      let asked = 0;
      await box.network.reclaim({ has: () => ++asked > 1 });
      assert.equal(asked, 2);
      assert.deepEqual(await box.network.list(), ["bot"]);
    });
  });

  describe("the host", () => {
    test("is left without a trace, and can be set up again", async () => {
      await box.network.setup("bot");
      await box.network.teardownHost();
      assert.equal(await remains(), "");
      await box.network.teardownHost();
      assert.notEqual((await box.network.setup("bot")).ip, "");
    });

    test("has one mount for the namespaces, however its run directory is called and however often it is checked", async () => {
      await sh(`ln -s ${box.runDir} ${box.runDir}-link`);
      const network = box.again({ runDir: `${box.runDir}-link` });
      await network.ensureHost();
      await network.ensureHost();
      await box.network.ensureHost();
      assert.equal(await sh(`grep -c ' ${box.runDir}/netns ' /proc/self/mountinfo`), "1");
      await network.setup("bot");
      assert.notEqual(await box.network.inspect("bot"), undefined);
      await network.teardownHost();
      assert.equal(await remains(), "");
      await sh(`rm ${box.runDir}-link`);
    });

    test("is made right before a setup when its bridge has gone", async () => {
      await box.network.setup("bot");
      await sh(`ip link del ${box.bridge}`);
      await box.network.setup("other");
      assert.equal((await ports()).length, 2, "the bot that was there is on the new bridge");
    });

    test("refuses a subnet it has a route to, with the route and what to set", async () => {
      await sh(
        "ip link add mtr type veth peer name mtr2; ip addr add 10.80.4.1/24 dev mtr; ip link set mtr up; ip link set mtr2 up",
      );
      const refused = (error: unknown) =>
        Fault.is(error, "failed_precondition") &&
        /overlaps the route 10\.80\.4\.0\/24 of mtr/.test(error.message) &&
        /network\.subnet/.test(error.hint ?? "");
      await assert.rejects(box.again({ subnet: "10.80.0.0/16" }).setup("bot"), refused);
      await assert.rejects(box.again({ subnet: "10.80.4.128/25" }).setup("bot"), refused);
      assert.equal(await sh(`ls /sys/class/net | grep -c ${box.bridge} || true`), "0");
      await sh("ip link del mtr");
      await using other = await sandbox();
      await other.network.ensureHost();
      await assert.rejects(box.again({ subnet: `${other.prefix}0/24` }).ensureHost(), /overlaps the route/);
    });

    test("says so when a route collides later, and keeps the bots running", async () => {
      await box.network.setup("bot");
      await sh(
        `ip link add mtr type veth peer name mtr2; ip link set mtr up; ip route add ${box.prefix}128/25 dev mtr`,
      );
      const [finding] = await box.network.ensureHost();
      assert.match(finding?.what ?? "", /the route .*\/25 of mtr overlaps/);
      assert.equal(finding?.repaired, false);
      await sh("ip link del mtr");
    });

    test("leaves a bridge or an interface that is not its own alone", async () => {
      const refused = (error: unknown) =>
        Fault.is(error, "failed_precondition") && /network\.bridge/.test(error.hint ?? "");
      for (const made of [
        `ip link add ${box.bridge} type bridge; ip addr add 10.81.0.1/24 dev ${box.bridge}`,
        `ip link add ${box.bridge} type veth peer name mtx`,
        `ip link add ${box.bridge} type bridge; ip link set dev ${box.bridge} alias memoh:another`,
      ]) {
        await sh(made);
        const before = await sh(`ip -o addr show dev ${box.bridge}; ip -o link show dev ${box.bridge}`);
        await assert.rejects(box.network.ensureHost(), refused);
        await box.network.teardownHost();
        assert.equal(
          await sh(`ip -o addr show dev ${box.bridge}; ip -o link show dev ${box.bridge}`),
          before,
        );
        await sh(`ip link del ${box.bridge}`);
      }
    });

    test("refuses names and ranges that cannot be", () => {
      const make = (options: object) => () => box.again(options);
      for (const options of [
        { instance: "a b" },
        { instance: "" },
        { bridge: "much-too-long-for-an-interface" },
        { bridge: "br0+" },
        { subnet: "10.88.0.0" },
        { subnet: "10.88.0.5/16" },
        { subnet: "10.88.0.0/30" },
        { subnet: "fd00::/64" },
        { deny: ["10.0.0.0/33"] },
        { runDir: "relative" },
      ]) {
        assert.throws(make(options), (error) => Fault.is(error, "invalid_argument"), JSON.stringify(options));
      }
    });

    test("refuses container ids that could leave their directory", async () => {
      for (const id of ["", "..", "a/b", "a\0b", "-a", "a..b", `x${"y".repeat(80)}`]) {
        const refused = (error: unknown) => Fault.is(error, "invalid_argument");
        await assert.rejects(box.network.setup(id), refused, id);
        await assert.rejects(box.network.remove(id), refused, id);
        await assert.rejects(box.network.inspect(id), refused, id);
      }
    });
  });

  test("a host killed at any moment of setups and removals leaves nothing that the next one cannot mend", async () => {
    await box.network.ensureHost();
    const ids = ["bot-0", "bot-1", "bot-2"];
    for (let round = 0; round < 8; round++) {
      const child = spawn(
        process.execPath,
        [join(import.meta.dirname, "churn.ts"), JSON.stringify({ ...boxOptions(), ids })],
        {
          stdio: ["ignore", "pipe", "inherit"],
        },
      );
      await once(child.stdout, "data");
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 150));
      child.kill("SIGKILL");
      await once(child, "exit");
      const network = box.again();
      const results = await Promise.all(ids.map(async (id) => await network.setup(id)));
      assert.equal(new Set(results.map(({ ip }) => ip)).size, ids.length);
      for (const [index, id] of ids.entries()) assert.deepEqual(await network.inspect(id), results[index]);
    }
    await box.network.reclaim(new Set());
    assert.deepEqual(await box.network.list(), []);
    assert.equal(await sh("ls /sys/class/net | grep -c veth || true"), "0");
  });

  function boxOptions() {
    const { instance, bridge, runDir } = box;
    return { instance, bridge, runDir, subnet: `${box.prefix}0/24` };
  }
});
