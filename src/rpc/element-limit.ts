// Refuses messages that are small on the wire and huge in memory.
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/**
 * Most inner messages and list elements of one message. An empty one takes two bytes on the wire and a hundred times that
 * as an object. The longest honest list, 16 MiB of file entries, has fewer than 300,000.
 */
const MAX_ELEMENTS = 500_000;
/** Messages below this cannot hold so many that it matters. */
const HARMLESS = 64 << 10;

const fieldMaps = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

/** @throws Error when the message would become too many objects, or is malformed */
export function limitElements(schema: DescMessage, bytes: Uint8Array): void {
  if (bytes.length < HARMLESS) return;
  const reader = new BinaryReader(bytes);
  const left = countdown(schema, reader, bytes.length, MAX_ELEMENTS);
  if (left < 0) throw new Error(`more than ${MAX_ELEMENTS} elements in one message`);
}

/** @returns how many elements may still come; below 0 when there were too many */
function countdown(schema: DescMessage, reader: BinaryReader, end: number, budget: number): number {
  const fields = fieldsOf(schema);
  let left = budget;
  while (reader.pos < end && left >= 0) {
    const [number, wireType] = reader.tag();
    const field = fields.get(number);
    const inner = field === undefined ? undefined : messageOf(field);
    if (inner !== undefined && wireType === WireType.LengthDelimited) {
      const length = reader.uint32();
      left = countdown(inner, reader, reader.pos + length, left - 1);
    } else {
      if (field?.fieldKind === "list" && isSized(field)) left--;
      reader.skip(wireType, number);
    }
  }
  return left;
}

function messageOf(field: DescField): DescMessage | undefined {
  if (field.fieldKind === "message") return field.message;
  return field.fieldKind === "list" && field.listKind === "message" ? field.message : undefined;
}

/** Texts and bytes; numbers are packed and take no more in memory than on the wire. */
function isSized(field: DescField & { fieldKind: "list" }): boolean {
  return (
    field.listKind === "scalar" && (field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES)
  );
}

function fieldsOf(schema: DescMessage): ReadonlyMap<number, DescField> {
  let fields = fieldMaps.get(schema);
  if (fields === undefined) {
    fields = new Map(schema.fields.map((field) => [field.number, field]));
    fieldMaps.set(schema, fields);
  }
  return fields;
}
