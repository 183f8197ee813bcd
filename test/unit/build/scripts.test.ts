// The shell scripts of the bot image.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { DOCKER_FILES } from "../../../src/gen/docker-files.ts";

const folder = mkdtempSync(join(tmpdir(), "memoh-scripts-"));
after(() => {
  rmSync(folder, { recursive: true });
});
writeFileSync(join(folder, "pipx"), '#!/bin/sh\nfor word in "$@"; do printf "[%s]" "$word"; done\n', {
  mode: 0o755,
});
writeFileSync(join(folder, "uvx"), DOCKER_FILES["uvx.sh"], { mode: 0o755 });

function uvx(...args: string[]) {
  return spawnSync(join(folder, "uvx"), args, {
    encoding: "utf8",
    env: { PATH: `${folder}:/usr/bin:/bin` },
  });
}

const CALLS: readonly (readonly [args: string[], becomes: string])[] = [
  [["mcp-server-fetch"], "[run][mcp-server-fetch]"],
  [["mcp-server-fetch", "--port", "1 2"], "[run][mcp-server-fetch][--port][1 2]"],
  [["mcp-server-fetch@1.2", "-v"], "[run][--spec][mcp-server-fetch==1.2][mcp-server-fetch][-v]"],
  [["mcp-server-fetch@latest"], "[run][--spec][mcp-server-fetch][mcp-server-fetch]"],
  [["--from", "pkg[x]", "tool", "a"], "[run][--spec][pkg[x]][tool][a]"],
  [["--from=pkg", "--", "tool", "--from", "b"], "[run][--spec][pkg][tool][--from][b]"],
  [["-q", "--python", "3.11", "tool@2"], "[run][--python][3.11][--spec][tool==2][tool]"],
];

for (const [args, becomes] of CALLS) {
  test(`uvx ${args.join(" ")} becomes pipx ${becomes}`, () => {
    const done = uvx(...args);
    assert.deepEqual([done.status, done.stdout, done.stderr], [0, becomes, ""]);
  });
}

test("uvx refuses a flag it does not know and a call without a package, with the status of wrong usage", () => {
  const unknown = uvx("--offline", "tool");
  assert.equal(unknown.status, 64);
  assert.match(unknown.stderr, /--offline is not supported/);
  const empty = uvx();
  assert.equal(empty.status, 64);
  assert.match(empty.stderr, /usage: uvx/);
});

test("the templates are the six that bots know, and none is empty", () => {
  const templates = Object.entries(DOCKER_FILES).filter(([name]) => name.startsWith("templates/"));
  assert.deepEqual(
    templates.map(([name]) => name),
    ["HEARTBEAT", "IDENTITY", "MEMORY", "PROFILES", "SOUL", "TOOLS"].map((name) => `templates/${name}.md`),
  );
  for (const [name, text] of templates) assert.match(text, /^# \w+\n\n/, name);
});
