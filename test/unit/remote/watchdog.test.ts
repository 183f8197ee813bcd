// The watchdog: only an agent that keeps us waiting is cut off.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { sleep } from "../../../src/lib/signal.ts";
import { type AgentClient, leaseOf } from "../../../src/remote/route.ts";
import { Watchdog } from "../../../src/remote/watchdog.ts";
import { BOT } from "../../support/fake-agent.ts";
import { until } from "../../support/pieces.ts";

const nobody = {} as AgentClient;

test("an agent that does not go on is cut off with a deadline that names the bot", async () => {
  using lease = leaseOf(nobody, undefined, () => undefined);
  using watchdog = new Watchdog(lease, BOT, 30);
  watchdog.begin();
  await until("it is cut off", () => lease.signal.aborted);
  const reason: unknown = lease.signal.reason;
  assert.ok(Fault.is(reason, "deadline_exceeded"));
  assert.match(reason.message, new RegExp(BOT));
});

test("a reader or a source that takes its time on this side is left alone", async () => {
  using lease = leaseOf(nobody, undefined, () => undefined);
  using watchdog = new Watchdog(lease, BOT, 30);
  await watchdog.during(Promise.resolve());
  await sleep(120);
  assert.ok(!lease.signal.aborted);
  watchdog.begin();
  await until("but the agent is still watched after that", () => lease.signal.aborted);
});

test("a watchdog that was disposed cuts nobody off", async () => {
  using lease = leaseOf(nobody, undefined, () => undefined);
  const watchdog = new Watchdog(lease, BOT, 20);
  watchdog.begin();
  watchdog[Symbol.dispose]();
  await sleep(80);
  assert.ok(!lease.signal.aborted);
});
