// The bot image, really built from this machine's mirror, unpacked and started by its own entrypoint.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CACHE } from "../../../build/project.ts";
import { toolEnvironment } from "../../../src/config/tool-env.ts";
import { ContainerService } from "../../../src/gen/proto/mcpcontainer/container_pb.ts";
import { type BuildBotImage, buildBotImage } from "../../../src/host/bot-image/build.ts";
import { nodeFiles } from "../../../src/host/bot-image/node-files.ts";
import { Fault } from "../../../src/lib/fault.ts";
import { RpcChannel } from "../../../src/rpc/channel.ts";
import { builtExecutable } from "../../support/executables.ts";
import { emptyRoot, inRoot } from "../../support/rootfs.ts";

/** Stands in the CA file that the build is given: no file of the image may have it. */
const MARKER = "memoh-test-private-ca";

/** Kept between runs: the base alone takes half a minute. */
const IMAGE_WORK = join(CACHE, "image-build");

let folder: string;
let options: BuildBotImage;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "memoh-image-"));
  // Another build in this clone may put a new file in its place meanwhile.
  copyFileSync(builtExecutable("bun"), join(folder, "memoh"));
  const extraCa = join(folder, "ca.pem");
  writeFileSync(extraCa, `${readFileSync("/etc/ssl/certs/ca-certificates.crt", "utf8")}# ${MARKER}\n`);
  options = {
    workDir: IMAGE_WORK,
    output: join(CACHE, "images", "build-test.tar"),
    name: "localhost/memoh/build-test:latest",
    base: "local",
    target: "test",
    executable: join(folder, "memoh"),
    engine: "buildah",
    extraCa,
    env: toolEnvironment(),
  };
  rmSync(options.output, { force: true });
});

after(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Manifest {
  readonly config: { readonly digest: string };
  readonly layers: readonly { readonly digest: string; readonly mediaType: string }[];
}

test("an image is an OCI archive with zstd layers that starts an agent by itself", {
  timeout: 400_000,
}, async (t) => {
  const said: string[] = [];
  const built = await buildBotImage({ ...options, onProgress: (text) => said.push(text) });
  assert.deepEqual([built.engine, built.cached, built.name], ["buildah", false, options.name]);
  assert.ok(said.includes("building the image with buildah"), said.join("; "));

  const layout = join(folder, "layout");
  mkdirSync(layout);
  assert.equal(spawnSync("tar", ["-xf", built.archive, "-C", layout]).status, 0);
  const json = (path: string): unknown => JSON.parse(readFileSync(join(layout, path), "utf8"));
  const blob = (digest: string) => join("blobs", digest.replace(":", "/"));
  const index = json("index.json") as {
    manifests: { digest: string; annotations: Record<string, string> }[];
  };
  assert.equal(index.manifests[0]?.annotations["org.opencontainers.image.ref.name"], options.name);
  const manifest = json(blob(index.manifests[0]?.digest ?? "")) as Manifest;
  for (const layer of manifest.layers) {
    assert.equal(layer.mediaType, "application/vnd.oci.image.layer.v1.tar+zstd");
  }
  const image = json(blob(manifest.config.digest)) as {
    config: { Entrypoint: string[]; WorkingDir: string };
  };
  assert.deepEqual(image.config.Entrypoint, ["/opt/entrypoint.sh"]);
  assert.equal(image.config.WorkingDir, "/data");

  const root = emptyRoot(t);
  for (const layer of manifest.layers) {
    const unpacked = spawnSync("tar", ["--zstd", "-xpf", join(layout, blob(layer.digest)), "-C", root]);
    assert.equal(unpacked.status, 0, unpacked.stderr.toString());
  }
  assert.ok(
    existsSync(join(root, "bin/bash")) && existsSync(join(root, "etc/ssl/certs/ca-certificates.crt")),
  );
  const marked = spawnSync("grep", ["-rlF", MARKER, "--exclude-dir=proc", root], { encoding: "utf8" });
  assert.equal(marked.stdout, "");

  const agent = spawn(
    ...inRoot(root, undefined, ["/opt/entrypoint.sh", "--insecure", "--listen", "unix:/run/agent.sock"]),
    { stdio: ["ignore", "inherit", "inherit"] },
  );
  t.after(async () => {
    agent.kill("SIGKILL");
    if (agent.exitCode === null && agent.signalCode === null) await once(agent, "exit");
  });
  using channel = new RpcChannel({ target: `unix:${join(root, "run/agent.sock")}` });
  await channel.ready(20_000);
  const hello = await channel.client(ContainerService, { timeoutMs: 20_000 }).hello({});
  assert.match(hello.runtime, /^bun /);
  assert.deepEqual(
    readdirSync(join(root, "data"))
      .filter((name) => name.endsWith(".md"))
      .toSorted(),
    ["HEARTBEAT.md", "IDENTITY.md", "MEMORY.md", "PROFILES.md", "SOUL.md", "TOOLS.md"],
  );
});

test("an unchanged image is not built again, an archive that somebody replaced is", {
  timeout: 200_000,
}, async () => {
  const first = await buildBotImage(options);
  const { mtimeMs } = await stat(first.archive);
  const again = await buildBotImage(options);
  assert.equal(again.cached, true);
  assert.equal((await stat(again.archive)).mtimeMs, mtimeMs);
  // Whoever replaced the archive gets a true one back.
  writeFileSync(options.output, "not an image");
  const repaired = await buildBotImage(options);
  assert.deepEqual([repaired.cached, repaired.bytes > 1e6], [false, true]);
});

test("a build leaves no mounts and no scratch folders", () => {
  assert.ok(!readFileSync("/proc/mounts", "utf8").includes(IMAGE_WORK));
  assert.deepEqual(
    readdirSync(IMAGE_WORK).filter((name) => name.startsWith("build-")),
    [],
  );
});

/** A PATH with these programs only. */
function pathWith(...programs: string[]): string {
  const place = mkdtempSync(join(folder, "bin-"));
  for (const name of programs) {
    writeFileSync(join(place, name), `#!/bin/sh\nexec /usr/bin/${name} "$@"\n`, { mode: 0o755 });
  }
  return place;
}

test("a machine without buildah and docker is told which package to install", async () => {
  const output = join(folder, "never.tar");
  await assert.rejects(
    buildBotImage({ ...options, output, engine: undefined, env: { PATH: pathWith("skopeo") } }),
    (error) =>
      Fault.is(error, "failed_precondition") &&
      error.message === "Cannot build the image: buildah is not installed" &&
      error.hint === "Install the package `buildah`",
  );
  assert.ok(!existsSync(output));
});

test("docker is refused with what it lacks: the program, an engine, or the plug-in that builds", async () => {
  const docker = pathWith("skopeo");
  const says = async (script: string | undefined, why: string) => {
    if (script !== undefined)
      writeFileSync(join(docker, "docker"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await assert.rejects(
      buildBotImage({ ...options, engine: "docker", env: { PATH: docker } }),
      (error) =>
        Fault.is(error, "failed_precondition") &&
        error.message === `Cannot build the image with docker: ${why}`,
    );
  };
  await says(undefined, "docker is not installed");
  await says("exit 1", "no docker engine answers");
  await says('test "$1" = version || echo "--target"', "docker has no buildx plug-in");
});

test("a base that cannot be pulled says so and names the way without a registry", {
  timeout: 120_000,
}, async () => {
  await assert.rejects(
    buildBotImage({
      ...options,
      output: join(folder, "never.tar"),
      base: "127.0.0.1:9/no/such:base",
    }),
    (error) => Fault.is(error, "unavailable") && error.hint?.includes("--base local") === true,
  );
});

test("a Node package that is not the pinned one is refused and not kept", async () => {
  const place = pathWith("tar");
  writeFileSync(
    join(place, "npm"),
    `#!/bin/sh
for word in "$@"; do case $word in --pack-destination=*) cd "\${word#*=}";; node-linux*@*) name=$word;; esac; done
/bin/mkdir package && echo evil > package/index.js && /bin/tar -cf "$(echo $name | /bin/sed 's/@/-/').tgz" package
`,
    { mode: 0o755 },
  );
  const kept = join(folder, "node");
  await assert.rejects(
    nodeFiles(kept, { progress: () => undefined, command: { env: { PATH: place } } }),
    (error) => Fault.is(error, "data_loss") && error.message.includes("not the package that was pinned"),
  );
  assert.deepEqual(readdirSync(kept), []);
});

test("somebody who is not root is told so", () => {
  const script = `import { buildBotImage } from "${import.meta.resolve("../../../src/host/bot-image/build.ts")}";
    await buildBotImage({ workDir: "/x", output: "/x/y" }).catch((e) => console.log(e.code, e.message));`;
  const done = spawnSync(
    "setpriv",
    ["--reuid=65534", "--clear-groups", process.execPath, "--input-type=module", "--eval", script],
    { encoding: "utf8" },
  );
  assert.match(done.stdout, /^permission_denied Cannot build the image/, done.stderr);
});
