import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { choosePostgres } from "../../../src/store/postgres-binaries.ts";

/** A tree like Debian's with programs of these versions. */
async function root(...versions: string[]): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "memoh-pgroot-"));
  for (const version of versions) {
    await mkdir(join(path, version, "bin"), { recursive: true });
    for (const program of ["postgres", "initdb"]) {
      await writeFile(join(path, version, "bin", program), "");
      await chmod(join(path, version, "bin", program), 0o755);
    }
  }
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true });
    },
  };
}

describe("the choice of Postgres", () => {
  it("is the newest for a new cluster, by number", async () => {
    await using tree = await root("9", "15", "17");
    assert.equal((await choosePostgres(undefined, tree.path)).version, "17");
  });

  it("is the cluster's own version for one that exists", async () => {
    await using tree = await root("15", "17");
    assert.equal((await choosePostgres("15", tree.path)).bin, join(tree.path, "15/bin"));
  });

  it("passes over a version whose programs are not all there", async () => {
    await using tree = await root("15", "17");
    await rm(join(tree.path, "17/bin/initdb"));
    assert.equal((await choosePostgres(undefined, tree.path)).version, "15");
  });

  it("names what to install when there is none", async () => {
    await assert.rejects(choosePostgres(undefined, "/nowhere"), (error: unknown) => {
      assert.ok(Fault.is(error, "failed_precondition"));
      assert.match(error.hint ?? "", /apt-get install .*postgresql/);
      return true;
    });
  });

  it("names both versions when the cluster's is missing", async () => {
    await using tree = await root("17");
    await assert.rejects(choosePostgres("15", tree.path), (error: unknown) => {
      assert.ok(Fault.is(error, "failed_precondition"));
      assert.match(error.message, /version 15, installed is 17/);
      assert.match(error.hint ?? "", /postgresql-15/);
      return true;
    });
  });
});
