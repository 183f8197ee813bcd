// Assertions about Faults.
import assert from "node:assert/strict";
import { type Code, Fault } from "../../src/lib/fault.ts";

/** For `assert.rejects`: a Fault with this code whose message, and hint, match. */
export function isFault(code: Code, message = /./, hint?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(Fault.is(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    if (hint !== undefined) assert.match(error.hint ?? "", hint);
    return true;
  };
}
