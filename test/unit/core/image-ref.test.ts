import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  formatImageRef,
  normalizeImageRef,
  parseImageRef,
  withDefaultTag,
} from "../../../src/core/image-ref.ts";
import { Fault } from "../../../src/lib/fault.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

void describe("normalizeImageRef", () => {
  const same = [
    "docker.io/library/alpine",
    "docker.io/a/b:1",
    "reg:5000/x",
    "reg:5000/x:tag",
    "[::1]:5000/x",
    "[fd00::1]/x/y:1",
    "127.0.0.1:5000/x",
    "localhost/x",
    "localhost:5000/x/y/z:1.2.3",
    "registry.example/team/bot:1",
    `registry.example/team/bot@${DIGEST}`,
    `registry.example/team/bot:1@${DIGEST}`,
    "Registry.Example/x",
    "a.b/c__d/e--f.g_h:_x",
    `registry.example/x:${"t".repeat(128)}`,
  ];
  for (const ref of same) {
    void it(`leaves ${ref.slice(0, 60)} as it is`, () => {
      assert.equal(normalizeImageRef(ref), ref);
    });
  }

  const completed: readonly (readonly [string, string])[] = [
    ["alpine", "docker.io/library/alpine"],
    ["alpine:3", "docker.io/library/alpine:3"],
    ["a/b", "docker.io/a/b"],
    ["a/b/c:1", "docker.io/a/b/c:1"],
    ["docker.io/alpine", "docker.io/library/alpine"],
    ["docker.io/alpine:3", "docker.io/library/alpine:3"],
    [`alpine@${DIGEST}`, `docker.io/library/alpine@${DIGEST}`],
    [`alpine:3@${DIGEST}`, `docker.io/library/alpine:3@${DIGEST}`],
    ["localhost", "docker.io/library/localhost"],
    ["localhost:5000", "docker.io/library/localhost:5000"],
  ];
  for (const [ref, expected] of completed) {
    void it(`completes ${ref.slice(0, 60)}`, () => {
      assert.equal(normalizeImageRef(ref), expected);
      assert.equal(normalizeImageRef(expected), expected);
    });
  }

  const refused = [
    "",
    " ",
    "alpine ",
    " alpine",
    "al pine",
    "Alpine",
    "Foo/bar",
    "docker.io/Alpine",
    "reg:5000/X",
    "alpine:",
    "alpine:-x",
    "alpine:.x",
    "alpine:a/b",
    `alpine:${"t".repeat(129)}`,
    "alpine:3:4",
    "alpine@",
    "alpine@sha256",
    "alpine@sha256:abc",
    `alpine@sha512:${"0".repeat(128)}`,
    `alpine@${DIGEST.toUpperCase()}`,
    `alpine@${DIGEST}@${DIGEST}`,
    `@${DIGEST}`,
    ":tag",
    "/alpine",
    "alpine/",
    "a//b",
    "docker.io/",
    "reg:5000/",
    "reg:/x",
    "reg:0/x",
    "reg:65536/x",
    "reg:port/x",
    "-reg.example/x",
    "reg..example/x",
    "[::1/x",
    "[zz::]:5000/x",
    "[fe80::1%eth0]:5000/x",
    "a..b/c",
    "x/-y",
    "x/y-",
    "x/y___z",
    "x/_y",
    "https://registry.example/x",
    "../../etc/passwd",
    "alpine\n",
    "alpine\0",
    "ünïcode/x",
    `registry.example/${"x".repeat(250)}`,
  ];
  for (const ref of refused) {
    void it(`refuses ${JSON.stringify(ref).slice(0, 60)} and says what to do`, () => {
      assert.throws(
        () => normalizeImageRef(ref),
        (error) => Fault.is(error, "invalid_argument") && error.hint !== undefined,
      );
    });
  }
});

void describe("parseImageRef", () => {
  void it("takes every part out of a full reference", () => {
    assert.deepEqual(parseImageRef(`[::1]:5000/team/bot:1@${DIGEST}`), {
      registry: "[::1]:5000",
      repository: "team/bot",
      tag: "1",
      digest: DIGEST,
    });
  });

  void it("has no tag and no digest where none is written", () => {
    assert.deepEqual(parseImageRef("alpine"), {
      registry: "docker.io",
      repository: "library/alpine",
      tag: undefined,
      digest: undefined,
    });
  });

  void it("is undone by formatImageRef", () => {
    for (const ref of [`reg:5000/x:1@${DIGEST}`, "docker.io/a/b", "localhost/x:2"]) {
      assert.equal(formatImageRef(parseImageRef(ref)), ref);
    }
  });
});

void describe("withDefaultTag", () => {
  void it("adds latest only when there is neither tag nor digest", () => {
    assert.equal(withDefaultTag("alpine"), "docker.io/library/alpine:latest");
    assert.equal(withDefaultTag("alpine:3"), "docker.io/library/alpine:3");
    assert.equal(withDefaultTag(`alpine@${DIGEST}`), `docker.io/library/alpine@${DIGEST}`);
    assert.equal(withDefaultTag("reg:5000/x"), "reg:5000/x:latest");
  });
});
