import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { renderMigrations } from "../../../build/gen-migrations.ts";
import { MIGRATIONS } from "../../../src/gen/migrations.ts";

const ROOT = join(import.meta.dirname, "../../..");

/** A copy of the folder to spoil. */
async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "memoh-migrations-"));
  await cp(join(ROOT, "migrations"), path, { recursive: true });
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true });
    },
  };
}

describe("embedded migrations", () => {
  it("are the files of the folder (else run node build/gen-migrations.ts)", async () => {
    const generated = await readFile(join(ROOT, "src/gen/migrations.ts"), "utf8");
    assert.equal(generated, await renderMigrations(join(ROOT, "migrations")));
  });

  it("hold the text of each file unchanged", async () => {
    for (const { version, name, up, down } of MIGRATIONS) {
      const base = join(ROOT, "migrations", `${String(version).padStart(4, "0")}_${name}`);
      assert.equal(up, await readFile(`${base}.up.sql`, "utf8"));
      assert.equal(down, await readFile(`${base}.down.sql`, "utf8"));
    }
  });

  it("begin as the original's do", () => {
    assert.deepEqual(
      MIGRATIONS.slice(0, 2).map(({ version, name }) => [version, name]),
      [
        [1, "init"],
        [22, "drop_host_path"],
      ],
    );
    assert.ok(MIGRATIONS.slice(2).every(({ version }) => version >= 23));
  });

  it("survive backticks, backslashes and dollar signs", async () => {
    await using copy = await folder();
    const text = "select '`\\n${x}$$\\';\n";
    await writeFile(join(copy.path, "9000_odd.up.sql"), text);
    await writeFile(join(copy.path, "9000_odd.down.sql"), "");
    const file = join(copy.path, "rendered.ts");
    await writeFile(file, await renderMigrations(copy.path));
    const module = (await import(file)) as { MIGRATIONS: readonly { up: string }[] };
    assert.equal(module.MIGRATIONS.at(-1)?.up, text);
  });

  it("are refused when a file lacks its twin, shares a number, is misnamed or ends its transaction", async () => {
    await using copy = await folder();
    const spoil = async (name: string, text: string, message: RegExp) => {
      await writeFile(join(copy.path, name), text);
      await assert.rejects(renderMigrations(copy.path), message);
      await unlink(join(copy.path, name));
    };
    await spoil("9000_alone.up.sql", "", /alone lacks its down file/);
    await spoil("0001_twice.up.sql", "", /0001 is taken by init/);
    await spoil("9000-dash.up.sql", "", /9000-dash/);
    await spoil("0001_init.up.sql.orig", "", /must be NNNN_name/);
    await spoil("9000_ends.up.sql", "create table x ();\nCOMMIT;\n", /transaction/);
  });
});
