// Routes that answer with progress line by line until the images are there.

import type { ApiClient, ApiRequest } from "../http/client.ts";
import { type Code, Fault } from "../lib/fault.ts";
import type { ImageJson } from "./api-types.ts";
import { formatBytes } from "./io.ts";
import type { Progress } from "./progress.ts";

interface Line {
  readonly progress?: {
    readonly phase: string;
    readonly item?: string;
    readonly done?: number;
    readonly total?: number;
  };
  readonly images?: readonly ImageJson[];
  readonly error?: { readonly code: Code; readonly message: string; readonly hint?: string };
}

/** Runs a route that answers with progress lines. @returns the images it ends with */
export async function followLines(
  api: ApiClient,
  call: ApiRequest,
  progress: Progress,
): Promise<readonly ImageJson[]> {
  for await (const document of api.lines(call)) {
    const line = document as Line;
    if (line.error !== undefined)
      throw new Fault(line.error.code, line.error.message, { hint: line.error.hint });
    if (line.images !== undefined) return line.images;
    if (line.progress !== undefined) progress.update(describe(line.progress));
  }
  throw new Fault("unavailable", "The host broke off before it was done");
}

function describe({ phase, item, done, total }: NonNullable<Line["progress"]>): string {
  const what = item === undefined ? phase : `${phase} ${item.replace(/^sha256:([0-9a-f]{12}).*/, "$1")}`;
  if (done === undefined) return what;
  // Layers are unpacked one by one; everything else counts bytes.
  if (phase === "unpack") return `${what} (${done + 1} of ${total ?? "?"})`;
  return total === undefined
    ? `${what} ${formatBytes(done)}`
    : `${what} ${formatBytes(done)} of ${formatBytes(total)}`;
}
