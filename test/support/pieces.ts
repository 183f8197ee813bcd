// Small pieces every test of streams needs: bytes gathered, things waited for.
import assert from "node:assert/strict";
import { type Code, Fault } from "../../src/lib/fault.ts";
import { sleep } from "../../src/lib/signal.ts";

/** All bytes of a source. */
export async function gather(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

/** A source of these pieces. */
export async function* pieces(...parts: (Uint8Array | string)[]): AsyncGenerator<Uint8Array, void> {
  for (const part of parts) yield await Promise.resolve(Buffer.from(part));
}

/** Waits until the condition holds. @throws after ten seconds, naming what was waited for */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(`waited in vain: ${what}`);
    await sleep(5);
  }
}

/** The Fault of work that must fail with one of these codes. */
export async function faultOf(work: Promise<unknown>, ...codes: Code[]): Promise<Fault> {
  let result: unknown;
  try {
    result = await work;
  } catch (error) {
    assert.ok(Fault.is(error), `not a Fault: ${String(error)}`);
    if (codes.length > 0 && !codes.includes(error.code)) {
      assert.fail(`expected ${codes.join(" or ")}, got ${error.code}: ${error.message}`);
    }
    return error;
  }
  assert.fail(`expected a Fault, got ${JSON.stringify(result)}`);
}
