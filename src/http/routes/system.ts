// Routes about the host itself: liveness, truth, doctor, tokens and one-time tickets.
import { z } from "zod";
import { requireAdmin } from "../../core/access.ts";
import { Fault } from "../../lib/fault.ts";
import { bodyOf, type HttpParts, signalOf } from "../context.ts";
import type { RouteSpec } from "../openapi.ts";
import type { Tickets } from "../tickets.ts";
import { tokenJson } from "../views.ts";

const TOKEN = z.object({
  name: z.string().min(1).max(100),
  role: z.enum(["admin", "owner", "guest"]),
  bots: z.array(z.string()).optional(),
});

export function systemRoutes(parts: HttpParts, tickets: Tickets): RouteSpec[] {
  const { control, limits, version } = parts;
  const tag = "system";
  return [
    {
      method: "get",
      path: "/",
      tag,
      summary: "What answers here",
      handle: (c) => c.json({ name: "memoh", version, api: "/api/openapi.json" }),
    },
    { method: "get", path: "/ping", tag, summary: "Whether anything answers", handle: (c) => c.text("pong") },
    {
      method: "get",
      path: "/health",
      tag,
      summary: "Whether the process lives",
      handle: (c) => c.json({ status: "ok" }),
    },
    {
      method: "get",
      path: "/ready",
      tag,
      summary: "Whether everything the host stands on is right",
      handle: async (c) => {
        const readiness = await control.readiness({ signal: signalOf(c) });
        return c.json(readiness, readiness.ready ? 200 : 503);
      },
    },
    {
      method: "get",
      path: "/doctor",
      tag,
      summary: "Every check, with what to do",
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        return c.json({ checks: await control.doctor({ signal: signalOf(c) }) });
      },
    },
    {
      method: "get",
      path: "/tokens",
      tag,
      summary: "List tokens; their texts are not kept",
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        return c.json({ items: (await control.tokens({ signal: signalOf(c) })).map(tokenJson) });
      },
    },
    {
      method: "post",
      path: "/tokens",
      tag,
      summary: "Make a token; its text is shown this once",
      body: TOKEN,
      answers: { 201: { description: "Made" } },
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        const input = await bodyOf(c, TOKEN, limits.maxBody);
        const token = await control.createToken(
          { name: input.name, role: input.role, bots: input.bots ?? [] },
          { signal: signalOf(c) },
        );
        return c.json(tokenJson(token), 201);
      },
    },
    {
      method: "delete",
      path: "/tokens/{token_id}",
      tag,
      summary: "Revoke a token",
      answers: { 204: { description: "Revoked" } },
      handle: async (c) => {
        requireAdmin(c.get("actor"));
        if (!(await control.deleteToken(c.req.param("token_id") ?? "", { signal: signalOf(c) }))) {
          throw new Fault("not_found", "token not found", { hint: "List the tokens with: memoh token list" });
        }
        return c.body(null, 204);
      },
    },
    {
      method: "post",
      path: "/tickets",
      tag,
      summary: "A ticket that opens one WebSocket within 30 seconds, for browsers",
      handle: (c) => c.json({ ticket: tickets.issue(c.get("actor")) }, 201),
    },
  ];
}
