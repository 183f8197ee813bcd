// Addresses of bots: one writer, kept before used, changes heard first by who holds a connection.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Wait } from "../../../src/core/workspace.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { type Address, Addresses } from "../../../src/remote/addresses.ts";
import { Pool } from "../../../src/remote/pool.ts";
import { BOT, fakeAgent, OTHER_BOT } from "../../support/fake-agent.ts";
import { faultOf } from "../../support/pieces.ts";
import { marked, markOf } from "./pools.ts";

interface Book {
  readonly addresses: Addresses;
  readonly evicted: string[];
  readonly saved: (Address | undefined)[];
  fail?: Error | undefined;
}

function book(
  load: (botId: string, wait?: Wait) => Promise<Address | undefined> = async () => undefined,
): Book {
  const self: Book = {
    evicted: [],
    saved: [],
    addresses: new Addresses({
      load,
      save: async (_, address) => {
        await sleep(1);
        if (self.fail !== undefined) throw self.fail;
        self.saved.push(address);
      },
      onChange: (botId) => self.evicted.push(botId),
    }),
  };
  return self;
}

test("a new address or a new boot evicts, the same ones again do not", async () => {
  const { addresses, evicted, saved } = book();
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  assert.deepEqual([evicted.length, saved.length], [1, 1]);
  await addresses.setContainerIP(BOT, "10.0.0.3", "boot-1");
  await addresses.setContainerIP(BOT, "10.0.0.3", "boot-2");
  assert.deepEqual([evicted.length, saved.length], [3, 3]);
  assert.deepEqual(await addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("a cleared address is gone, evicted and forgotten where it was kept", async () => {
  const { addresses, evicted, saved } = book();
  await addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  await addresses.clear(BOT);
  assert.equal(await addresses.get(BOT), undefined);
  assert.deepEqual(saved, [{ ip: "10.0.0.2", bootId: "boot-1" }, undefined]);
  assert.equal(evicted.length, 2);
});

test("an address that could not be kept is not used either", async () => {
  const self = book();
  await self.addresses.setContainerIP(BOT, "10.0.0.2", "boot-1");
  self.fail = new Fault("unavailable", "the database is down");
  await faultOf(self.addresses.setContainerIP(BOT, "10.0.0.3", "boot-2"), "unavailable");
  assert.equal(await self.addresses.get(BOT), undefined);
  self.fail = undefined;
  await self.addresses.setContainerIP(BOT, "10.0.0.3", "boot-2");
  assert.deepEqual(await self.addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("an empty or malformed address is an error, never a bot without one", async () => {
  const { addresses, evicted } = book();
  for (const ip of ["", "10.0.0", "host", "10.0.0.1:9090"]) {
    await faultOf(addresses.setContainerIP(BOT, ip, "boot-1"), "invalid_argument");
  }
  await faultOf(addresses.setContainerIP(BOT, "10.0.0.2", ""), "invalid_argument");
  assert.equal(evicted.length, 0);
});

test("after a restart of the host the kept address is read once", async () => {
  let loads = 0;
  const { addresses } = book(async (botId) => {
    loads++;
    return await Promise.resolve(botId === BOT ? { ip: "10.0.0.9", bootId: "boot-7" } : undefined);
  });
  const [one, two] = await Promise.all([addresses.get(BOT), addresses.get(BOT)]);
  assert.deepEqual(one, { ip: "10.0.0.9", bootId: "boot-7" });
  assert.deepEqual(two, one);
  assert.equal(loads, 1);
  assert.equal(await addresses.get(OTHER_BOT), undefined);
});

test("changes of one bot are kept in the order they were asked for", async () => {
  const { addresses, saved } = book();
  await Promise.all([
    addresses.setContainerIP(BOT, "10.0.0.2", "boot-1"),
    addresses.clear(BOT),
    addresses.setContainerIP(BOT, "10.0.0.3", "boot-2"),
  ]);
  assert.deepEqual(saved.at(-1), { ip: "10.0.0.3", bootId: "boot-2" });
  assert.deepEqual(await addresses.get(BOT), { ip: "10.0.0.3", bootId: "boot-2" });
});

test("an address change through the one writer moves calls to the new agent", async () => {
  await using old = await fakeAgent(marked(1));
  await using next = await fakeAgent(marked(2), { bootId: "boot-2" });
  const ports = new Map([
    ["127.0.0.1", old.port],
    ["127.0.0.2", next.port],
  ]);
  const addresses = new Addresses({
    load: async () => await Promise.resolve(undefined),
    save: async () => {
      await Promise.resolve();
    },
    onChange: (botId) => {
      pool.evict(botId);
    },
  });
  await using pool = new Pool({
    log: silentLogger(),
    endpoints: async (botId, wait) => {
      const address = await addresses.get(botId, wait);
      if (address === undefined) throw new Fault("failed_precondition", "the bot does not run");
      return { botId, bootId: address.bootId, target: `127.0.0.1:${ports.get(address.ip)}` };
    },
  });
  await addresses.setContainerIP(BOT, "127.0.0.1", "boot-1");
  const workspace = await pool.workspace(BOT);
  assert.equal(await markOf(workspace), 1);
  await addresses.setContainerIP(BOT, "127.0.0.2", "boot-2");
  assert.equal(await markOf(workspace), 2);
  await addresses.clear(BOT);
  await faultOf(workspace.health(), "failed_precondition");
});
