// What every route is given, and how it reads its request.
import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import type { z } from "zod";
import { type Action, type Actor, requireAccess } from "../core/access.ts";
import type { BotView } from "../core/bot.ts";
import type { Change, ControlPlane } from "../core/control.ts";
import type { Workspace } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";

/** Limits of requests, bytes. */
export interface HttpLimits {
  readonly maxBody: number;
  readonly maxUpload: number;
}

/** What the application is made with. */
export interface HttpParts {
  readonly control: ControlPlane;
  readonly log: Logger;
  readonly limits: HttpLimits;
  /** Version text for OpenAPI. */
  readonly version: string;
}

/** Hono's types: node's own request beside, the actor set by the auth middleware. */
export interface Env {
  Bindings: HttpBindings & { readonly trusted?: boolean };
  Variables: { actor: Actor };
}

export type RequestContext = Context<Env>;

/** The signal of a request: aborts when the client goes. */
export function signalOf(c: RequestContext): AbortSignal {
  return c.req.raw.signal;
}

/** Who asks, and how: Prefer and Idempotency-Key are honoured on every change. */
export function changeOf(c: RequestContext): Change {
  const prefer = c.req.header("prefer") ?? "";
  return {
    actor: c.get("actor"),
    signal: signalOf(c),
    idempotencyKey: c.req.header("idempotency-key"),
    async: prefer.split(",").some((item) => item.trim() === "respond-async"),
  };
}

/** The bot of the route, if the caller may do that with it. */
export async function botOf(control: ControlPlane, c: RequestContext, action: Action): Promise<BotView> {
  const ref = c.req.param("bot_id") ?? "";
  if (ref === "") throw new Fault("invalid_argument", "bot id is required");
  const bot = await control.bot(ref, { signal: signalOf(c) });
  requireAccess(c.get("actor"), bot, action);
  return bot;
}

/** The workspace of the route's bot. @throws Fault unavailable `container not reachable: …` as in the original */
export async function workspaceOf(
  control: ControlPlane,
  c: RequestContext,
  action: Action,
): Promise<Workspace> {
  const bot = await botOf(control, c, action);
  return await reachWorkspace(control, bot.id, signalOf(c));
}

export async function reachWorkspace(
  control: ControlPlane,
  botId: string,
  signal: AbortSignal,
): Promise<Workspace> {
  try {
    return await control.workspaces.workspace(botId, { signal });
  } catch (error) {
    if (!Fault.is(error, "unavailable", "failed_precondition")) throw error;
    throw new Fault(error.code, `container not reachable: ${error.message}`, {
      hint: error.hint,
      cause: error,
      http: 503,
    });
  }
}

/** A JSON body of the schema. @throws Fault invalid_argument naming the field, resource_exhausted when too large */
export async function bodyOf<S extends z.ZodType>(
  c: RequestContext,
  schema: S,
  maxBody: number,
): Promise<z.infer<S>> {
  const bytes = await readBody(c, maxBody);
  let raw: unknown = {};
  if (bytes.length > 0) {
    try {
      raw = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (error) {
      throw new Fault("invalid_argument", "Cannot read the request body: it is not JSON", { cause: error });
    }
  }
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? "the body" : issue.path.join(".");
  throw new Fault("invalid_argument", `Cannot use ${where}: ${issue?.message ?? "wrong form"}`, {
    hint: "See /api/openapi.json for the form of this request",
  });
}

async function readBody(c: RequestContext, max: number): Promise<Buffer> {
  const declared = Number(c.req.header("content-length") ?? "0");
  const tooLarge = () =>
    new Fault("resource_exhausted", `Cannot take the request body: larger than ${max} bytes`, {
      hint: "Use an upload route for large content, or raise http.max_body",
      http: 413,
    });
  if (declared > max) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bytesOf(c)) {
    size += chunk.length;
    if (size > max) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The body as it arrives. Stopping early cancels the request's stream. */
export async function* bytesOf(c: RequestContext): AsyncGenerator<Uint8Array> {
  const body = c.req.raw.body;
  if (body === null) return;
  for await (const chunk of body) yield chunk as Uint8Array;
}
