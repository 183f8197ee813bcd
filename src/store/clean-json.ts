// JSON that jsonb accepts: text from bots and errors may hold NUL or half a surrogate pair, which Postgres refuses.

/** A JSON value. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

/** A copy in which NUL characters and lone surrogates are U+FFFD; what JSON cannot say is left out. */
export function cleanJson(value: unknown): Json {
  const text = JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "bigint" ? String(part) : part,
  );
  if (text === undefined) return null;
  return clean(JSON.parse(text) as Json);
}

/** The text with NUL characters and lone surrogates as U+FFFD. */
export function cleanText(text: string): string {
  return text.replaceAll("\0", "\uFFFD").toWellFormed();
}

function clean(value: Json): Json {
  if (typeof value === "string") return cleanText(value);
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, part]) => [cleanText(key), part === undefined ? null : clean(part)]),
    );
  }
  return value;
}
