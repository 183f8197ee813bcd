// Container records: made from a description, brought up to date, compared before they are written.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BOT_LABEL } from "../core/bot-id.ts";
import type { ContainerDescription } from "../core/runtime.ts";
import type { Container } from "../gen/proto/containerd/containers_pb.ts";
import { OptionsSchema } from "../gen/proto/containerd/runc_options_pb.ts";
import { Fault } from "../lib/fault.ts";
import type { RuntimeSpec } from "../oci/runtime-spec.ts";
import type { ContainerdServices } from "./client.ts";

const RUNTIME = "io.containerd.runc.v2";
const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const OPTIONS_TYPE = "containerd.runc.v1.Options";

/** An Any as containerd writes them: no prefix before the type. */
interface PlainAny {
  readonly typeUrl: string;
  readonly value: Uint8Array<ArrayBuffer>;
}

/** What a record should say. */
export interface WantedRecord {
  readonly id: string;
  readonly image: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly runtime: { readonly name: string; readonly options: PlainAny };
  readonly spec: PlainAny;
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/** @param runtimeBinary `runc`, or the name or path of what takes its place */
export function wantedRecord(
  description: ContainerDescription,
  spec: RuntimeSpec,
  data: { readonly snapshotter: string; readonly key: string },
  runtimeBinary: string,
): WantedRecord {
  const options = create(OptionsSchema, runtimeBinary === "runc" ? {} : { binaryName: runtimeBinary });
  return {
    id: description.id,
    image: description.image,
    labels: { [BOT_LABEL]: description.botId },
    runtime: { name: RUNTIME, options: { typeUrl: OPTIONS_TYPE, value: toBinary(OptionsSchema, options) } },
    spec: { typeUrl: SPEC_TYPE, value: new TextEncoder().encode(JSON.stringify(spec)) },
    snapshotter: data.snapshotter,
    snapshotKey: data.key,
  };
}

/** The record, or undefined. */
export async function recordOf(
  services: Pick<ContainerdServices, "containers">,
  id: string,
  signal?: AbortSignal,
): Promise<Container | undefined> {
  try {
    return (await services.containers.get({ id }, { signal })).container;
  } catch (error) {
    if (Fault.is(error, "not_found")) return undefined;
    throw error;
  }
}

/** Records by containerd's filters, all without one. Streamed: a thousand specs do not fit into one message. */
export async function records(
  services: Pick<ContainerdServices, "containers">,
  filters: string[],
  signal?: AbortSignal,
): Promise<Container[]> {
  const found: Container[] = [];
  for await (const { container } of services.containers.listStream({ filters }, { signal })) {
    if (container !== undefined) found.push(container);
  }
  return found;
}

/**
 * Makes the record say what is wanted. A record of another runtime or snapshotter is made anew, because containerd
 * cannot change those; the caller has seen to it that no task stands on it.
 */
export async function putRecord(
  services: ContainerdServices,
  present: Container | undefined,
  wanted: WantedRecord,
  signal?: AbortSignal,
): Promise<void> {
  if (present !== undefined) {
    if (sameRuntime(present, wanted) && present.snapshotter === wanted.snapshotter) {
      if (isUpToDate(present, wanted)) return;
      await services.containers.update(
        {
          container: { ...wanted, labels: { ...present.labels, ...wanted.labels } },
          updateMask: { paths: ["spec", "image", "labels", "snapshotkey"] },
        },
        { signal },
      );
      return;
    }
    await services.containers.delete({ id: wanted.id }, { signal });
  }
  try {
    await services.containers.create({ container: wanted }, { signal });
  } catch (error) {
    const other = Fault.is(error, "already_exists") ? await recordOf(services, wanted.id, signal) : undefined;
    // Someone else made it in between; its deletion meanwhile too is not worth a third try.
    if (other === undefined || present !== undefined) throw error;
    await putRecord(services, other, wanted, signal);
  }
}

/** The program that runs a container: `runc` unless its record names another. */
export function runtimeBinaryOf(record: Container): string {
  const options = record.runtime?.options;
  const named = options?.typeUrl === OPTIONS_TYPE ? fromBinary(OptionsSchema, options.value).binaryName : "";
  return named === "" ? "runc" : named;
}

function sameRuntime(present: Container, wanted: WantedRecord): boolean {
  return (
    present.runtime?.name === wanted.runtime.name &&
    equal(present.runtime.options?.value, wanted.runtime.options.value)
  );
}

function isUpToDate(present: Container, wanted: WantedRecord): boolean {
  return (
    present.image === wanted.image &&
    present.snapshotKey === wanted.snapshotKey &&
    equal(present.spec?.value, wanted.spec.value) &&
    Object.entries(wanted.labels).every(([key, value]) => present.labels[key] === value)
  );
}

function equal(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return Buffer.compare(a ?? new Uint8Array(), b) === 0;
}
