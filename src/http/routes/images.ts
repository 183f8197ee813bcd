// Routes of images; long ones answer with progress, one JSON document per line.
import { z } from "zod";
import { requireAdmin } from "../../core/access.ts";
import { normalizeImageRef, withDefaultTag } from "../../core/image-ref.ts";
import type { ImageInfo, TransferProgress } from "../../core/runtime.ts";
import { Fault } from "../../lib/fault.ts";
import type { Logger } from "../../lib/log.ts";
import { bodyOf, type HttpParts, signalOf } from "../context.ts";
import type { RouteSpec } from "../openapi.ts";
import { type Problem, problemOf } from "../problem.ts";
import { emitted, linesOf, streamOf } from "../stream.ts";
import { imageJson } from "../views.ts";

const PULL = z.object({ ref: z.string(), always: z.boolean().optional() });
const IMPORT = z.object({
  /** Path of the archive on the host. */
  path: z.string(),
  name: z.string().optional(),
});

/** A line of a progress stream: progress, then either images or an error. */
type Line =
  | { readonly progress: TransferProgress }
  | { readonly images: readonly ReturnType<typeof imageJson>[] }
  | { readonly error: Problem };

function progressResponse(
  work: (emit: (progress: TransferProgress) => void) => Promise<readonly ImageInfo[]>,
  log: Logger,
): Response {
  const lines = emitted<Line>(async (emit) => {
    try {
      const images = await work((progress) => {
        emit({ progress });
      });
      return { images: images.map(imageJson) };
    } catch (error) {
      return { error: problemOf(error, log) };
    }
  });
  return new Response(streamOf(linesOf(lines)), { headers: { "content-type": "application/x-ndjson" } });
}

export function imageRoutes({ control, limits, log }: HttpParts): RouteSpec[] {
  const tag = "images";
  return [
    {
      method: "get",
      path: "/images",
      tag,
      summary: "List images",
      handle: async (c) => {
        const images = await control.images.list({ signal: signalOf(c) });
        return c.json({ items: images.map(imageJson), default: control.defaultImage });
      },
    },
    {
      method: "post",
      path: "/images/pull",
      tag,
      summary: "Pull an image; answers with progress lines",
      body: PULL,
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        const { ref, always } = await bodyOf(c, PULL, limits.maxBody);
        const name = withDefaultTag(normalizeImageRef(ref));
        return progressResponse(
          async (onProgress) => [
            await control.images.pull(name, { signal: signalOf(c), always: always ?? false, onProgress }),
          ],
          log,
        );
      },
    },
    {
      method: "post",
      path: "/images/import",
      tag,
      summary: "Import an OCI or docker archive that lies on the host; answers with progress lines",
      body: IMPORT,
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        const { path, name } = await bodyOf(c, IMPORT, limits.maxBody);
        return progressResponse(
          (onProgress) =>
            control.images.import(path, {
              signal: signalOf(c),
              onProgress,
              ...(name === undefined ? {} : { name: withDefaultTag(normalizeImageRef(name)) }),
            }),
          log,
        );
      },
    },
    {
      method: "delete",
      path: "/images",
      tag,
      summary: "Remove an image by name; bots made from it keep working",
      query: z.object({ ref: z.string() }),
      answers: { 204: { description: "Removed" } },
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        const name = withDefaultTag(normalizeImageRef(c.req.query("ref") ?? ""));
        if (!(await control.images.remove(name, { signal: signalOf(c) }))) {
          throw new Fault("not_found", `Cannot remove the image ${name}: it is not here`, {
            hint: "List the images with: memoh image list",
          });
        }
        return c.body(null, 204);
      },
    },
  ];
}
