import assert from "node:assert/strict";
import { describe, it } from "node:test";
import postgres from "postgres";
import { Fault } from "../../../src/lib/fault.ts";
import { faultFromDatabase } from "../../../src/store/sqlstate.ts";

/** An error as the server sends it. */
function serverError(code: string, more: Record<string, string> = {}): Error {
  return Object.assign(Object.create(postgres.PostgresError.prototype) as Error, {
    message: "server words",
    code,
    ...more,
  });
}

function systemError(code: string): Error {
  return Object.assign(new Error(`connect ${code}`), { code });
}

describe("database errors", () => {
  for (const [sqlstate, code] of [
    ["08006", "unavailable"],
    ["22P02", "invalid_argument"],
    ["23503", "failed_precondition"],
    ["23505", "already_exists"],
    ["23514", "invalid_argument"],
    ["28P01", "failed_precondition"],
    ["3D000", "failed_precondition"],
    ["40P01", "aborted"],
    ["42P01", "failed_precondition"],
    ["53100", "resource_exhausted"],
    ["53300", "resource_exhausted"],
    ["57014", "deadline_exceeded"],
    ["57P01", "unavailable"],
    ["57P02", "unavailable"],
    ["57P03", "unavailable"],
    ["XX001", "data_loss"],
    ["XX000", "internal"],
  ] as const) {
    it(`become ${code} for SQLSTATE ${sqlstate}`, () => {
      const fault = faultFromDatabase(serverError(sqlstate), { doing: "do it" });
      assert.equal(fault.code, code);
      assert.match(fault.message, /^Cannot do it: /);
    });
  }

  for (const [errno, code] of [
    ["ECONNREFUSED", "unavailable"],
    ["ENOENT", "unavailable"],
    ["ECONNRESET", "unavailable"],
    ["CONNECTION_CLOSED", "unavailable"],
    ["CONNECT_TIMEOUT", "unavailable"],
    ["ENOTFOUND", "unavailable"],
    ["EACCES", "failed_precondition"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "failed_precondition"],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "failed_precondition"],
  ] as const) {
    it(`become ${code} for ${errno}, with a hint`, () => {
      const fault = faultFromDatabase(systemError(errno), { doing: "do it" });
      assert.equal(fault.code, code);
      assert.notEqual(fault.hint, undefined);
    });
  }

  it("name the constraint in the caller's words", () => {
    const error = serverError("23505", { constraint_name: "bots_name_unique" });
    const fault = faultFromDatabase(error, {
      doing: "create the bot demo",
      conflicts: { bots_name_unique: "the name is taken" },
    });
    assert.equal(fault.message, "Cannot create the bot demo: the name is taken");
  });

  it("pass Faults unchanged and keep the cause of the rest", () => {
    const fault = new Fault("cancelled", "x");
    assert.equal(faultFromDatabase(fault, { doing: "do it" }), fault);
    const odd = new Error("odd");
    assert.equal(faultFromDatabase(odd, { doing: "do it" }).cause, odd);
  });
});
