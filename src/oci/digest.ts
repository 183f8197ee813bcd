// Digests of content: SHA-256 only, which is what containerd stores content under.
import { createHash } from "node:crypto";

const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Whether the text is `sha256:` and 64 hex digits. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** The digest of bytes. */
export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
