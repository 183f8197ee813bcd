// JSON of strangers: bounded, parsed and checked against a schema, with errors that name the document.
import * as z from "zod";
import { Fault } from "../lib/fault.ts";
import { isDigest } from "./digest.ts";

/** Largest manifest, index or config taken, bytes. The biggest known are a few hundred KiB. */
export const MAX_DOCUMENT = 4 << 20;

export const digestSchema = z.string().refine(isDigest, "not a sha256 digest");

/** Go writes an empty list or table as null. */
export function orEmpty<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

/**
 * Parses and checks a document.
 * @param what names it in the error: `the manifest sha256:…`
 * @throws Fault failed_precondition when it is no such document
 */
export function parseDocument<T extends z.ZodType>(schema: T, bytes: Uint8Array, what: string): z.output<T> {
  const wrong = (why: string, cause?: unknown) =>
    new Fault("failed_precondition", `Cannot use ${what}: ${why}`, {
      cause,
      hint: "The image is malformed: build or fetch it again",
    });
  if (bytes.length > MAX_DOCUMENT) throw wrong(`it is larger than ${MAX_DOCUMENT >> 20} MiB`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw wrong("it is not JSON", error);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const at = issue?.path.map(String).join(".") ?? "";
  throw wrong(`${at === "" ? "" : `${at}: `}${issue?.message ?? "not as expected"}`);
}
