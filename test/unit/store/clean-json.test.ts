import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { cleanJson } from "../../../src/store/clean-json.ts";

describe("JSON for jsonb", () => {
  it("replaces NUL characters and lone surrogates at any depth, in keys too", () => {
    assert.deepEqual(cleanJson({ "a\0": ["b\0", { c: "\ud800d" }] }), {
      "a\uFFFD": ["b\uFFFD", { c: "\uFFFDd" }],
    });
  });

  it("leaves everything else as JSON says it", () => {
    const at = new Date(0);
    assert.deepEqual(cleanJson({ n: 1, b: false, x: null, u: undefined, at, big: 5n, s: "é😀" }), {
      n: 1,
      b: false,
      x: null,
      at: at.toISOString(),
      big: "5",
      s: "é😀",
    });
    assert.equal(cleanJson(undefined), null);
  });
});
