// Protobuf-es messages as the serializers grpc-js wants.
import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { limitElements } from "./element-limit.ts";

/**
 * Bytes from which a field is spliced into the message. Protobuf-es writes into a buffer that it doubles, clears and cuts
 * at the end: for the chunks of a stream that is half of the work of sending them.
 */
const LARGE = 4 << 10;
const EMPTY = new Uint8Array(0);
/** Protobuf wire type 2. */
const LENGTH_DELIMITED = 2;

/** The fields of each message that may hold many bytes. */
const byteFields = new WeakMap<DescMessage, readonly DescField[]>();

/** Bytes of a message given as an instance or as its fields. */
export function encode<M extends DescMessage>(schema: M, message: MessageInitShape<M>): Buffer {
  const whole = create(schema, message);
  const values = whole as Record<string, unknown>;
  for (const { localName, number } of byteFieldsOf(schema)) {
    const data = values[localName];
    if (!(data instanceof Uint8Array) || data.length < LARGE) continue;
    // The order of fields is free, so the large one may stand last.
    const rest = toBinary(schema, { ...whole, [localName]: EMPTY });
    const prefix = [...varint((number << 3) | LENGTH_DELIMITED), ...varint(data.length)];
    const bytes = Buffer.allocUnsafe(rest.length + prefix.length + data.length);
    bytes.set(rest, 0);
    bytes.set(prefix, rest.length);
    bytes.set(data, rest.length + prefix.length);
    return bytes;
  }
  const bytes = toBinary(schema, whole);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A message from its bytes; `bytes` fields share memory with the input. @throws Error when it is malformed or absurd */
export function decode<M extends DescMessage>(schema: M, bytes: Uint8Array): MessageShape<M> {
  limitElements(schema, bytes);
  return fromBinary(schema, bytes);
}

/** `/package.Service/Method` */
export function methodPath(service: DescService, method: DescMethod): string {
  return `/${service.typeName}/${method.name}`;
}

function byteFieldsOf(schema: DescMessage): readonly DescField[] {
  let fields = byteFields.get(schema);
  if (fields === undefined) {
    fields = schema.fields.filter(
      (field) =>
        field.fieldKind === "scalar" && field.scalar === ScalarType.BYTES && field.oneof === undefined,
    );
    byteFields.set(schema, fields);
  }
  return fields;
}

/** A number below 2^32 in groups of seven bits, lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}
