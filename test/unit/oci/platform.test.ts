import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../../src/lib/fault.ts";
import { chainIds } from "../../../src/oci/chain-id.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Descriptor } from "../../../src/oci/manifest.ts";
import { choosePlatform, formatPlatform, hostPlatform, type Platform } from "../../../src/oci/platform.ts";

const AMD64 = hostPlatform("x64");
const ARM64 = hostPlatform("arm64");

function descriptor(text: string, annotations?: Record<string, string>): Descriptor {
  const [os = "", architecture = "", variant] = text.split("/");
  const platform: Platform | undefined = text === "" ? undefined : { os, architecture, variant };
  return { mediaType: "", digest: digestOf(text), size: 1, platform, annotations };
}

function chosen(platforms: readonly string[], host: Platform): string {
  const { platform } = choosePlatform(
    platforms.map((text) => descriptor(text)),
    host,
    "the test",
  );
  return platform === undefined ? "" : formatPlatform(platform);
}

void test("hosts are named as images name them", () => {
  assert.equal(formatPlatform(AMD64), "linux/amd64");
  assert.equal(formatPlatform(ARM64), "linux/arm64");
  assert.equal(formatPlatform(hostPlatform("s390x")), "linux/s390x");
});

void test("the image of the host's platform is chosen", () => {
  const all = ["linux/arm64/v8", "windows/amd64", "linux/amd64", "linux/386"];
  assert.equal(chosen(all, AMD64), "linux/amd64");
  assert.equal(chosen(all, ARM64), "linux/arm64/v8");
});

void test("the best variant the host runs is chosen, none above its baseline", () => {
  assert.equal(chosen(["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], hostPlatform("arm")), "linux/arm/v7");
  assert.equal(chosen(["linux/arm/v5", "linux/arm/v6"], hostPlatform("arm")), "linux/arm/v6");
  assert.equal(chosen(["linux/amd64/v3", "linux/amd64"], AMD64), "linux/amd64");
  assert.equal(chosen(["linux/arm64/8"], ARM64), "linux/arm64/8");
  assert.throws(() => chosen(["linux/amd64/v3"], AMD64), /it is for linux\/amd64\/v3/);
});

void test("an only image without a platform is left to its config", () => {
  assert.equal(chosen([""], AMD64), "");
  assert.equal(chosen(["", "linux/amd64"], AMD64), "linux/amd64");
});

void test("what there is instead is named", () => {
  assert.throws(
    () => chosen(["linux/s390x", "windows/amd64", "linux/s390x"], AMD64),
    (error) =>
      Fault.is(error, "failed_precondition") &&
      error.message ===
        "Cannot use the test: it is for linux/s390x, windows/amd64, this machine is linux/amd64" &&
      error.hint === "Use an image built for linux/amd64",
  );
  assert.throws(() => chosen([], AMD64), /it names no platform/);
});

void test("build records beside an image are no images", () => {
  const record = descriptor("unknown/unknown");
  const signed = descriptor("linux/amd64", { "vnd.docker.reference.type": "attestation-manifest" });
  const own = descriptor("linux/amd64/v1");
  assert.equal(choosePlatform([record, signed, own], AMD64, "x"), own);
  assert.throws(() => choosePlatform([record, signed], AMD64, "x"), /names no platform/);
});

void test("a chain id stands for a layer and all below it", () => {
  const [a, b, c] = ["a", "b", "c"].map((text) => digestOf(text));
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  const ab = digestOf(`${a} ${b}`);
  assert.deepEqual(chainIds([a, b, c]), [a, ab, digestOf(`${ab} ${c}`)]);
  assert.deepEqual(chainIds([a]), [a]);
  assert.deepEqual(chainIds([]), []);
});
