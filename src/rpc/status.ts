// Foreign world: gRPC statuses, turned into Faults and back.
import * as grpc from "@grpc/grpc-js";
import { CODES, codeFromGrpc, Fault } from "../lib/fault.ts";
import { reasonOf } from "../lib/signal.ts";

/** Trailer that carries a Fault's hint between memoh's own ends; foreign peers ignore it. */
const HINT_TRAILER = "memoh-hint-bin";

/** The status a Fault leaves a server with. */
export function statusFromFault(fault: Fault): Pick<grpc.StatusObject, "code" | "details" | "metadata"> {
  const metadata = new grpc.Metadata();
  if (fault.hint !== undefined) metadata.set(HINT_TRAILER, Buffer.from(fault.hint, "utf8"));
  return { code: CODES[fault.code].grpc, details: fault.message, metadata };
}

/**
 * The Fault of a call that failed. When the caller's own signal ended the call, its reason wins over the status the
 * transport made of it.
 */
export function faultFromStatus(error: unknown, signal?: AbortSignal): Fault {
  if (error instanceof Fault) return error;
  if (signal?.aborted === true) return Fault.from(reasonOf(signal));
  if (!isStatus(error)) return Fault.from(error);
  const hint = error.metadata?.get(HINT_TRAILER)[0];
  return new Fault(codeFromGrpc(error.code), error.details, {
    cause: error,
    hint: hint === undefined ? undefined : hint.toString("utf8"),
  });
}

interface Status {
  readonly code: number;
  readonly details: string;
  readonly metadata?: grpc.Metadata;
}

function isStatus(error: unknown): error is Status {
  return (
    typeof error === "object" &&
    error !== null &&
    "code" in error &&
    typeof error.code === "number" &&
    "details" in error &&
    typeof error.details === "string"
  );
}
