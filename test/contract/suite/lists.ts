// Lists of directories and of trees.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Listing } from "../../../src/core/workspace.ts";
import { faultOf } from "../../support/pieces.ts";
import type { Ground } from "./ground.ts";

const names = (listing: Listing) => listing.entries.map((entry) => entry.path.toString());

export function listTests(ground: Ground): void {
  test("a list is sorted by name, tells files from directories and does not follow links", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir d; printf 123 > f; : > B; : > .hidden; ln -s d link; mkfifo p", dir);
    const listing = await ground.workspace.list(dir);
    assert.deepEqual(names(listing), [".hidden", "B", "d", "f", "link", "p"]);
    assert.deepEqual(
      listing.entries.map((entry) => [entry.isDir, entry.mode[0]]),
      [
        [false, "-"],
        [false, "-"],
        [true, "d"],
        [false, "-"],
        [false, "L"],
        [false, "p"],
      ],
    );
    assert.equal(listing.entries.at(3)?.size, 3);
    assert.equal(listing.entries.at(4)?.linkTarget?.toString(), "d");
    assert.deepEqual([listing.totalCount, listing.truncated], [6, false]);
  });

  test("an empty directory is an empty list, a file is none", async () => {
    const dir = await ground.fresh();
    assert.deepEqual(names(await ground.workspace.list(dir)), []);
    await ground.write(`${dir}/f`, "x");
    await faultOf(ground.workspace.list(`${dir}/f`), "failed_precondition");
    await faultOf(ground.workspace.list(`${dir}/f`, { recursive: true }), "failed_precondition");
  });

  test("a recursive list has parents first, paths below the root and no way through links", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir -p a/b c; : > a/b/f; : > a/z; : > c/g; ln -s ../c a/link", dir);
    const listing = await ground.workspace.list(dir, { recursive: true });
    assert.deepEqual(names(listing), ["a", "a/b", "a/b/f", "a/link", "a/z", "c", "c/g"]);
    assert.deepEqual(listing.unreadable, []);
  });

  test("pages of a list and of a walk make up the whole", async () => {
    const dir = await ground.fresh();
    await ground.sh("for i in 0 1 2 3 4 5 6; do mkdir d$i; : > d$i/f; done", dir);
    for (const recursive of [false, true]) {
      const whole = await ground.workspace.list(dir, { recursive });
      const paged: string[] = [];
      for (let offset = 0; ; offset += 3) {
        const page = await ground.workspace.list(dir, { recursive, offset, limit: 3 });
        paged.push(...names(page));
        assert.equal(page.totalCount, whole.totalCount);
        assert.equal(page.truncated, offset + 3 < whole.totalCount);
        if (!page.truncated) break;
      }
      assert.deepEqual(paged, names(whole));
    }
    assert.deepEqual(names(await ground.workspace.list(dir, { offset: 100 })), []);
  });

  test("more entries than were allowed is an error, not a shorter list", async () => {
    const dir = await ground.fresh();
    await ground.sh("mkdir d; for i in 0 1 2 3; do : > d/f$i; done", dir);
    await faultOf(ground.workspace.list(`${dir}/d`, { maxEntries: 3 }), "resource_exhausted");
    assert.equal((await ground.workspace.list(`${dir}/d`, { maxEntries: 4 })).entries.length, 4);
    await faultOf(ground.workspace.list(dir, { recursive: true, maxEntries: 4 }), "resource_exhausted");
  });

  test("thousands of entries come whole, and too many for one answer name the way out", async () => {
    const dir = await ground.fresh();
    // Links to 4,000 bytes fill an answer with few files: 4 MiB for each 1,000 of them.
    await ground.sh(
      `long=$(printf '%4000s' | tr ' ' x); mkdir one a b; for i in $(seq 50); do ln -s $long one/l$i; done
       for i in $(seq 65); do cp -a one a/d$i; done; for i in $(seq 20); do cp -a one b/d$i; done`,
      dir,
    );
    const whole = await ground.workspace.list(`${dir}/a`, { recursive: true });
    assert.equal(whole.entries.length, 65 * 51);
    const fault = await faultOf(ground.workspace.list(dir, { recursive: true }), "resource_exhausted");
    assert.match(`${fault.message} ${fault.hint}`, /offset and limit/);
    const totalCount = 3 + 50 + 85 * 51;
    const page = await ground.workspace.list(dir, { recursive: true, offset: totalCount - 10, limit: 100 });
    assert.deepEqual([page.entries.length, page.totalCount, page.truncated], [10, totalCount, false]);
  });
}
