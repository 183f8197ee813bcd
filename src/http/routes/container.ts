// Routes of a bot's container, in the original's shapes with true statuses.
import { z } from "zod";
import type { BotView } from "../../core/bot.ts";
import { Fault } from "../../lib/fault.ts";
import { bodyOf, botOf, changeOf, type HttpParts, signalOf, workspaceOf } from "../context.ts";
import type { RouteSpec } from "../openapi.ts";
import { streamOf } from "../stream.ts";

const ENSURE = z.object({ snapshotter: z.string().optional() });

/** Phases in the words of the original's `containers.status`. */
const STATUS: Readonly<Record<string, string>> = {
  pending: "created",
  creating: "created",
  starting: "created",
  running: "running",
  stopping: "running",
  stopped: "stopped",
  deleting: "stopped",
  failed: "error",
};

export function containerRoutes({ control, limits }: HttpParts): RouteSpec[] {
  const tag = "container";
  const path = "/bots/{bot_id}/container";
  const requireContainer = (bot: BotView) => {
    if (bot.workspace === undefined) throw new Fault("not_found", "container not found for bot");
    return bot.workspace;
  };
  return [
    {
      method: "post",
      path,
      tag,
      summary: "Make the bot's container exist and run",
      body: ENSURE,
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        const { snapshotter } = await bodyOf(c, ENSURE, limits.maxBody);
        if (snapshotter !== undefined && snapshotter !== "" && snapshotter !== control.snapshotter) {
          throw new Fault("invalid_argument", `Cannot use the snapshotter ${snapshotter}`, {
            hint: `This host uses ${control.snapshotter}`,
          });
        }
        const started = requireContainer(await control.startBot(bot.id, changeOf(c)));
        return c.json({
          container_id: started.containerId,
          image: started.image,
          snapshotter: control.snapshotter,
          started: started.phase === "running",
        });
      },
    },
    {
      method: "get",
      path,
      tag,
      summary: "Show the bot's container",
      handle: async (c) => {
        const bot = await botOf(control, c, "read");
        const workspace = requireContainer(bot);
        return c.json({
          container_id: workspace.containerId,
          image: workspace.image,
          status: STATUS[workspace.phase] ?? "unknown",
          namespace: control.namespace,
          container_path: "/data",
          task_running: workspace.phase === "running",
          created_at: bot.createdAt.toISOString(),
          updated_at: workspace.updatedAt.toISOString(),
        });
      },
    },
    {
      method: "delete",
      path,
      tag,
      summary: "Delete the container and its data, but not the bot",
      answers: { 204: { description: "Deleted" } },
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        await control.deleteContainer(bot.id, changeOf(c));
        return c.body(null, 204);
      },
    },
    {
      method: "post",
      path: `${path}/start`,
      tag,
      summary: "Start the container",
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        requireContainer(bot);
        await control.startBot(bot.id, changeOf(c));
        return c.json({ started: true });
      },
    },
    {
      method: "post",
      path: `${path}/stop`,
      tag,
      summary: "Stop the container",
      handle: async (c) => {
        const bot = await botOf(control, c, "change");
        requireContainer(bot);
        await control.stopBot(bot.id, changeOf(c));
        return c.json({ stopped: true });
      },
    },
    {
      method: "get",
      path: `${path}/logs`,
      tag,
      summary: "The agent's own log, as text",
      query: z.object({ tail: z.string().optional(), follow: z.string().optional() }),
      handle: async (c) => {
        const workspace = await workspaceOf(control, c, "read");
        const logs = workspace.logs({
          signal: signalOf(c),
          tailLines: Math.max(0, Number(c.req.query("tail") ?? "0") || 0),
          follow: c.req.query("follow") === "true",
        });
        return new Response(streamOf(logs), { headers: { "content-type": "text/plain; charset=utf-8" } });
      },
    },
  ];
}
