// The file manager's routes, in the original's shapes: paths are absolute from `/`, downloads and uploads stream.
import { posix } from "node:path";
import mime from "mime";
import { z } from "zod";
import type { TreeConflict, WorkspacePath } from "../../core/workspace.ts";
import { Fault } from "../../lib/fault.ts";
import { bodyOf, bytesOf, type HttpParts, type RequestContext, signalOf, workspaceOf } from "../context.ts";
import { uploadOf } from "../multipart.ts";
import type { RouteSpec } from "../openapi.ts";
import { streamOf } from "../stream.ts";
import { fileJson } from "../views.ts";

/** Largest file the text route answers whole; more is for the download route. */
const MAX_READ = 16 << 20;

const PATH_QUERY = z.object({ path: z.string().optional(), path_b64: z.string().optional() });
const PATH_BODY = z.object({ path: z.string().optional(), path_b64: z.string().optional() });
const WRITE = PATH_BODY.extend({ content: z.string().optional(), content_b64: z.string().optional() });
const DELETE = PATH_BODY.extend({ recursive: z.boolean().optional() });
const RENAME = z.object({
  oldPath: z.string().optional(),
  newPath: z.string().optional(),
  oldPath_b64: z.string().optional(),
  newPath_b64: z.string().optional(),
});

/** A path as it came: text or base64 of its bytes, made absolute and cleaned. Undefined when neither was given. */
function pathFrom(text: string | undefined, base64: string | undefined): Buffer | undefined {
  if (base64 !== undefined && base64 !== "") {
    // Latin-1 keeps every byte, so the lexical cleaning works on names of any bytes.
    const latin1 = Buffer.from(base64, "base64").toString("latin1");
    return Buffer.from(cleaned(latin1), "latin1");
  }
  if (text === undefined || text === "") return undefined;
  return Buffer.from(cleaned(text), "utf8");
}

function cleaned(path: string): string {
  if (path.includes("\0")) {
    throw new Fault("invalid_argument", "Cannot use the path: it holds a NUL byte");
  }
  const normal = posix.normalize(`/${path}`);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

function requirePath(path: Buffer | undefined): Buffer {
  if (path === undefined) throw new Fault("invalid_argument", "path is required");
  return path;
}

function queryPath(c: RequestContext): Buffer | undefined {
  return pathFrom(c.req.query("path"), c.req.query("path_b64"));
}

/** `attachment` with the name in both forms of RFC 6266, so that no name can break out of the header. */
function attachment(path: Buffer): string {
  const name = path.toString("utf8").split("/").at(-1) ?? "download";
  const ascii = name.replaceAll(/[^\x20-\x7e]|["\\]/g, "_") || "download";
  const encoded = encodeURIComponent(name.toWellFormed()).replaceAll(
    /['()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

const CONFLICTS: readonly TreeConflict[] = ["fail", "replace", "keep", "rename"];

export function fileRoutes({ control, limits }: HttpParts): RouteSpec[] {
  const tag = "files";
  const base = "/bots/{bot_id}/container/fs";
  const ok = { 200: { description: "Done", schema: z.object({ ok: z.boolean() }) } };
  return [
    {
      method: "get",
      path: base,
      tag,
      summary: "Describe a file",
      query: PATH_QUERY,
      handle: async (c) => {
        const path = queryPath(c) ?? Buffer.from("/");
        const workspace = await workspaceOf(control, c, "read");
        return c.json(fileJson(await workspace.stat(path, { signal: signalOf(c) }), path));
      },
    },
    {
      method: "get",
      path: `${base}/list`,
      tag,
      summary: "List a directory",
      query: PATH_QUERY.extend({
        offset: z.string().optional(),
        limit: z.string().optional(),
        recursive: z.string().optional(),
      }),
      handle: async (c) => {
        const path = queryPath(c) ?? Buffer.from("/");
        const workspace = await workspaceOf(control, c, "read");
        const listing = await workspace.list(path, {
          signal: signalOf(c),
          recursive: c.req.query("recursive") === "true",
          offset: count(c, "offset"),
          limit: count(c, "limit"),
        });
        const slash = path.length === 1 ? path : Buffer.concat([path, Buffer.from("/")]);
        return c.json({
          path: path.toString("utf8"),
          entries: listing.entries.map((entry) => fileJson(entry, Buffer.concat([slash, entry.path]))),
          total_count: listing.totalCount,
          truncated: listing.truncated,
        });
      },
    },
    {
      method: "get",
      path: `${base}/read`,
      tag,
      summary: "Read a file as text, whole and unnumbered",
      query: PATH_QUERY,
      handle: async (c) => {
        const path = requirePath(queryPath(c));
        const workspace = await workspaceOf(control, c, "read");
        const content = await readWhole(await workspace.readRaw(path, { signal: signalOf(c) }));
        const text = content.toString("utf8");
        const exact = Buffer.from(text, "utf8").equals(content);
        return c.json({
          path: path.toString("utf8"),
          content: exact ? text : "",
          size: content.length,
          ...(exact ? {} : { content_b64: content.toString("base64") }),
        });
      },
    },
    {
      method: "get",
      path: `${base}/download`,
      tag,
      summary: "Download a file",
      query: PATH_QUERY,
      handle: async (c) => {
        const path = requirePath(queryPath(c));
        const workspace = await workspaceOf(control, c, "read");
        // The stream is open before the first byte: its errors are true statuses.
        const data = await workspace.readRaw(path, { signal: signalOf(c) });
        return new Response(streamOf(data), {
          headers: {
            "content-type": mime.getType(path.toString("utf8")) ?? "application/octet-stream",
            "content-disposition": attachment(path),
            "x-content-type-options": "nosniff",
          },
        });
      },
    },
    {
      method: "post",
      path: `${base}/write`,
      tag,
      summary: "Write a small file as a whole",
      body: WRITE,
      answers: ok,
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const body = await bodyOf(c, WRITE, limits.maxBody);
        const path = requirePath(pathFrom(body.path, body.path_b64));
        const content =
          body.content_b64 === undefined
            ? Buffer.from(body.content ?? "", "utf8")
            : Buffer.from(body.content_b64, "base64");
        await workspace.writeFile(path, content, { signal: signalOf(c) });
        return c.json({ ok: true });
      },
    },
    {
      method: "post",
      path: `${base}/upload`,
      tag,
      summary: "Upload a file: multipart with `path` before `file`, or the raw body with ?path=",
      query: PATH_QUERY,
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const type = c.req.header("content-type") ?? "";
        const given = queryPath(c);
        if (!type.startsWith("multipart/")) {
          const path = requirePath(given);
          const size = await workspace.writeRaw(path, bounded(bytesOf(c), limits.maxUpload), {
            signal: signalOf(c),
          });
          return c.json({ path: path.toString("utf8"), size });
        }
        await using upload = await uploadOf(c);
        const path = requirePath(pathFrom(upload.path, undefined) ?? given);
        const size = await workspace.writeRaw(path, bounded(upload.data, limits.maxUpload), {
          signal: signalOf(c),
        });
        return c.json({ path: path.toString("utf8"), size });
      },
    },
    {
      method: "post",
      path: `${base}/mkdir`,
      tag,
      summary: "Make a directory and its parents",
      body: PATH_BODY,
      answers: ok,
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const body = await bodyOf(c, PATH_BODY, limits.maxBody);
        await workspace.mkdir(requirePath(pathFrom(body.path, body.path_b64)), { signal: signalOf(c) });
        return c.json({ ok: true });
      },
    },
    {
      method: "post",
      path: `${base}/delete`,
      tag,
      summary: "Delete a file, or a tree with recursive",
      body: DELETE,
      answers: ok,
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const body = await bodyOf(c, DELETE, limits.maxBody);
        const path = requirePath(pathFrom(body.path, body.path_b64));
        if (path.equals(Buffer.from("/")))
          throw new Fault("permission_denied", "cannot delete root directory");
        await workspace.remove(path, { signal: signalOf(c), recursive: body.recursive ?? false });
        return c.json({ ok: true });
      },
    },
    {
      method: "post",
      path: `${base}/rename`,
      tag,
      summary: "Rename a file or directory",
      body: RENAME,
      answers: ok,
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "change");
        const body = await bodyOf(c, RENAME, limits.maxBody);
        const from = pathFrom(body.oldPath, body.oldPath_b64);
        const to = pathFrom(body.newPath, body.newPath_b64);
        if (from === undefined || to === undefined) {
          throw new Fault("invalid_argument", "oldPath and newPath are required");
        }
        await workspace.rename(from, to, { signal: signalOf(c) });
        return c.json({ ok: true });
      },
    },
    {
      method: "get",
      path: `${base}/tree`,
      tag,
      summary: "Download a directory or file as a tar stream",
      query: PATH_QUERY,
      handle: async (c) => {
        const path = requirePath(queryPath(c));
        const workspace = await workspaceOf(control, c, "read");
        const tree = await workspace.readTree(path, { signal: signalOf(c) });
        // The stream itself fails when the tree does; the summary says the same.
        tree.summary.catch(() => undefined);
        return new Response(streamOf(tree.data), {
          headers: {
            "content-type": "application/x-tar",
            "content-disposition": attachment(Buffer.concat([path, Buffer.from(".tar")])),
            "x-content-type-options": "nosniff",
          },
        });
      },
    },
    {
      method: "put",
      path: `${base}/tree`,
      tag,
      summary: "Unpack a tar stream below a directory",
      query: PATH_QUERY.extend({ conflict: z.enum(["fail", "replace", "keep", "rename"]).optional() }),
      handle: async (c) => {
        const path: WorkspacePath = requirePath(queryPath(c));
        const conflict = CONFLICTS.find((rule) => rule === (c.req.query("conflict") ?? "replace"));
        if (conflict === undefined) {
          throw new Fault(
            "invalid_argument",
            `Cannot use the conflict rule ${c.req.query("conflict") ?? ""}`,
            {
              hint: `Use one of ${CONFLICTS.join(", ")}`,
            },
          );
        }
        const workspace = await workspaceOf(control, c, "change");
        const written = await workspace.writeTree(path, bounded(bytesOf(c), limits.maxUpload), {
          signal: signalOf(c),
          conflict,
        });
        return c.json({
          entries: written.summary.entries,
          bytes: written.summary.bytes,
          sha256: written.summary.sha256.toString("hex"),
          conflicts: written.conflicts.map((name) => name.toString("utf8")),
          skipped: written.summary.skipped.map((skip) => ({
            path: skip.path.toString("utf8"),
            reason: skip.reason,
          })),
          xattrs_unsupported: written.summary.xattrsUnsupported,
        });
      },
    },
  ];
}

function count(c: RequestContext, name: string): number {
  const text = c.req.query(name);
  if (text === undefined || text === "") return 0;
  if (!/^\d{1,9}$/.test(text)) throw new Fault("invalid_argument", `Cannot use ${name}: not a whole number`);
  return Number(text);
}

async function readWhole(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_READ) {
      throw new Fault(
        "resource_exhausted",
        `Cannot read the file as text: larger than ${MAX_READ >> 20} MiB`,
        {
          hint: "Use the download route",
          http: 413,
        },
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The source up to `max` bytes. @throws Fault resource_exhausted beyond, which leaves the old file */
async function* bounded(source: AsyncIterable<Uint8Array>, max: number): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > max) {
      throw new Fault("resource_exhausted", `Cannot take the upload: larger than ${max} bytes`, {
        hint: "Raise http.max_upload",
        http: 413,
      });
    }
    yield chunk;
  }
}
