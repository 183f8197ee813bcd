// Routes of bots: create, list, show, start, stop, limits, events, delete.
import { z } from "zod";
import type { Limits } from "../../core/runtime.ts";
import { Fault } from "../../lib/fault.ts";
import { bodyOf, botOf, changeOf, type HttpParts, signalOf } from "../context.ts";
import type { RouteSpec } from "../openapi.ts";
import { botJson, eventJson } from "../views.ts";

const LIMITS = z.object({
  memory: z.number().int().nonnegative().optional(),
  pids: z.number().int().nonnegative().optional(),
  cpus: z.number().nonnegative().optional(),
});

const CREATE = z.object({
  name: z.string(),
  image: z.string().optional(),
  owner_id: z.string().optional(),
  limits: LIMITS.optional(),
  start: z.boolean().optional(),
});

export const BOT = z.object({
  id: z.string(),
  name: z.string(),
  owner_id: z.string(),
  state: z.string(),
  desired: z.string(),
  ip: z.string().nullable(),
  container_id: z.string().nullable(),
  image: z.string().nullable(),
  limits: LIMITS,
  disk_usage: z.number().nullable(),
  last_error: z
    .object({ code: z.string(), message: z.string(), hint: z.string().nullable(), step: z.string() })
    .loose()
    .nullable(),
  attempts: z.number(),
  next_attempt_at: z.string().nullable(),
  created_at: z.string(),
  updated_at: z.string(),
});

/** `exactOptionalPropertyTypes` wants absent keys, zod gives undefined ones. */
export function limitsOf(input: z.infer<typeof LIMITS>): Limits {
  return {
    ...(input.memory === undefined ? {} : { memory: input.memory }),
    ...(input.pids === undefined ? {} : { pids: input.pids }),
    ...(input.cpus === undefined ? {} : { cpus: input.cpus }),
  };
}

export function botRoutes({ control, limits }: HttpParts): RouteSpec[] {
  const tag = "bots";
  const one = { 200: { description: "The bot", schema: BOT } };
  return [
    {
      method: "get",
      path: "/bots",
      tag,
      summary: "List the bots the caller may read",
      answers: { 200: { description: "Bots by name", schema: z.object({ items: z.array(BOT) }) } },
      handle: async (c) => {
        const bots = await control.bots(c.get("actor"), { signal: signalOf(c) });
        return c.json({ items: bots.map(botJson) });
      },
    },
    {
      method: "post",
      path: "/bots",
      tag,
      summary: "Create a bot and start it",
      body: CREATE,
      answers: { 201: { description: "Created", schema: BOT } },
      handle: async (c) => {
        const actor = c.get("actor");
        if (actor.role === "guest") throw new Fault("permission_denied", "guests cannot create bots");
        const input = await bodyOf(c, CREATE, limits.maxBody);
        if (input.owner_id !== undefined && actor.role !== "admin" && input.owner_id !== actor.id) {
          throw new Fault("permission_denied", "Only an admin may create a bot for somebody else");
        }
        const bot = await control.createBot(
          {
            name: input.name,
            image: input.image,
            ownerId: input.owner_id,
            start: input.start,
            limits: input.limits === undefined ? undefined : limitsOf(input.limits),
          },
          changeOf(c),
        );
        return c.json(botJson(bot), 201);
      },
    },
    {
      method: "get",
      path: "/bots/{bot_id}",
      tag,
      summary: "Show a bot, by id or name",
      answers: one,
      handle: async (c) => c.json(botJson(await botOf(control, c, "read"))),
    },
    {
      method: "delete",
      path: "/bots/{bot_id}",
      tag,
      summary: "Delete a bot with its container, network and data",
      answers: { 204: { description: "Deleted" } },
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        await control.deleteBot(bot.id, changeOf(c));
        return c.body(null, 204);
      },
    },
    {
      method: "post",
      path: "/bots/{bot_id}/start",
      tag,
      summary: "Start a bot; a running one is success",
      answers: one,
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        return c.json(botJson(await control.startBot(bot.id, changeOf(c))));
      },
    },
    {
      method: "post",
      path: "/bots/{bot_id}/stop",
      tag,
      summary: "Stop a bot; its data, network and address stay",
      answers: one,
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        return c.json(botJson(await control.stopBot(bot.id, changeOf(c))));
      },
    },
    {
      method: "put",
      path: "/bots/{bot_id}/limits",
      tag,
      summary: "Change limits, live when the bot runs",
      body: LIMITS,
      answers: one,
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        const input = limitsOf(await bodyOf(c, LIMITS, limits.maxBody));
        return c.json(botJson(await control.setLimits(bot.id, input, changeOf(c))));
      },
    },
    {
      method: "get",
      path: "/bots/{bot_id}/events",
      tag,
      summary: "What happened to a bot, newest first",
      query: z.object({ limit: z.string().optional() }),
      handle: async (c) => {
        const bot = await botOf(control, c, "read");
        const limit = Math.min(Math.max(Number(c.req.query("limit") ?? "50") || 50, 1), 1000);
        const events = await control.events(bot.id, limit, { signal: signalOf(c) });
        return c.json({ items: events.map(eventJson) });
      },
    },
  ];
}
