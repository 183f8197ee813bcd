// The room table of ARCHITECTURE holds for every file under src, and the check itself finds each kind of break.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { brokenRules } from "./support/rooms.ts";

const SRC = join(import.meta.dirname, "..", "src");

function sources(): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of readdirSync(SRC, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && path.endsWith(".ts"))
      files.set(path.slice(SRC.length + 1), readFileSync(path, "utf8"));
  }
  return files;
}

test("every file of src keeps to its room, without cycles, barrels, stray exits or stray environment", () => {
  const files = sources();
  assert.ok(files.size > 30, `only ${files.size} files found`);
  assert.deepEqual(brokenRules(files), []);
});

const BREAKS: Readonly<Record<string, { files: Record<string, string>; says: string }>> = {
  "a forbidden import": {
    files: { "cni/a.ts": 'import { x } from "../store/b.ts";', "store/b.ts": "export const x = 1;" },
    says: "cni/a.ts: may not import store/b.ts",
  },
  "a forbidden import of types only": {
    files: {
      "http/a.ts": 'import type {\n  X,\n  Y,\n} from "../host/b.ts";',
      "host/b.ts": "export interface X {}\nexport interface Y {}",
    },
    says: "http/a.ts: may not import host/b.ts",
  },
  "a forbidden re-export": {
    files: {
      "lib/a.ts": 'export { x } from "../core/b.ts";\nexport const y = 1;',
      "core/b.ts": "export const x = 1;",
    },
    says: "lib/a.ts: may not import core/b.ts",
  },
  "a static import of what may only be loaded when asked for": {
    files: { "cli/a.ts": 'import { x } from "../host/b.ts";', "host/b.ts": "export const x = 1;" },
    says: "cli/a.ts: may not import host/b.ts",
  },
  "a host file that is not the composition root reaching into a room": {
    files: { "host/a.ts": 'import { x } from "../store/b.ts";', "store/b.ts": "export const x = 1;" },
    says: "host/a.ts: may not import store/b.ts",
  },
  "an import from outside of src": {
    files: { "lib/a.ts": 'import { x } from "../../build/project.ts";' },
    says: "lib/a.ts: may not import ../build/project.ts",
  },
  "a lazy import across rooms": {
    files: { "agent/a.ts": 'await import("../host/b.ts");', "host/b.ts": "export const x = 1;" },
    says: "agent/a.ts: may not import host/b.ts",
  },
  "an import cycle": {
    files: {
      "core/a.ts": 'import { b } from "./b.ts";',
      "core/b.ts": 'import { c } from "./c.ts";',
      "core/c.ts": 'import { a } from "./a.ts";',
    },
    says: "cycle: core/a.ts → core/b.ts → core/c.ts → core/a.ts",
  },
  "a barrel": {
    files: {
      "core/index.ts": '// All of core.\nexport * from "./a.ts";\nexport {\n  a,\n} from "./a.ts";\n',
      "core/a.ts": "export const a = 1;",
    },
    says: "core/index.ts: is a barrel",
  },
  "an exit outside of main": {
    files: { "cli/a.ts": "process.exit(1);" },
    says: "cli/a.ts: process.exit belongs in main.ts",
  },
  "an environment read outside of config": {
    files: { "agent/a.ts": 'const home = process.env["HOME"];' },
    says: "agent/a.ts: process.env belongs in config/",
  },
  "a room that is not in the table": {
    files: { "utils/a.ts": "export const a = 1;" },
    says: "utils/a.ts: no such room",
  },
};

for (const [what, { files, says }] of Object.entries(BREAKS)) {
  test(`the check finds ${what}`, () => {
    assert.deepEqual(brokenRules(new Map(Object.entries(files))), [says]);
  });
}

test("the check allows the composition root every room, lazy modes, cycles of types and prose about exits", () => {
  const files = {
    "host/compose.ts": 'import { a } from "../store/a.ts";\nimport { b } from "../cni/b.ts";',
    "main.ts": 'await import("./agent/c.ts");\nprocess.exit(0);',
    "store/a.ts": "// process.env and process.exit() are not used here\nexport const a = 1;",
    "cni/b.ts": "export const b = 1;",
    "agent/c.ts": 'import type { D } from "./d.ts";\nexport interface C { d: D }',
    "agent/d.ts": 'import type { C } from "./c.ts";\nexport interface D { c: C }',
  };
  assert.deepEqual(brokenRules(new Map(Object.entries(files))), []);
});
