// What /proc says of capabilities and limits.
import assert from "node:assert/strict";
import { test } from "node:test";
import { boundingSet, noFileLimit, readMachine } from "../../../src/containerd/machine.ts";

test("the bounding set is read by bit", () => {
  assert.deepEqual(boundingSet("CapEff:\t0000000000000000\nCapBnd:\t0000000001000009\n"), [
    "CAP_CHOWN",
    "CAP_FOWNER",
    "CAP_SYS_RESOURCE",
  ]);
  assert.deepEqual(boundingSet(""), []);
});

test("the hard limit of open files is read, unlimited and absent are no limit", () => {
  assert.equal(
    noFileLimit("Max open files            1024                 20000                files\n"),
    20_000,
  );
  assert.equal(
    noFileLimit("Max open files            1024                 unlimited            files\n"),
    Number.MAX_SAFE_INTEGER,
  );
  assert.equal(noFileLimit(""), Number.MAX_SAFE_INTEGER);
});

test("this very process can be read", async () => {
  const machine = await readMachine("self");
  assert.ok(machine.noFile > 0);
  assert.ok(Number.isInteger(machine.oomScoreAdj));
  assert.match(machine.architecture, /^(amd64|arm64)$/);
});
