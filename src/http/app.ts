// The HTTP application: routes behind authentication, every error a problem with a stable code.
import { OpenAPIHono } from "@hono/zod-openapi";
import { Fault } from "../lib/fault.ts";
import type { Authenticator } from "./authenticate.ts";
import type { Env, HttpParts } from "./context.ts";
import { addRoutes } from "./openapi.ts";
import { problemOf, problemResponse } from "./problem.ts";
import { botRoutes } from "./routes/bots.ts";
import { containerRoutes } from "./routes/container.ts";
import { execRoutes } from "./routes/exec.ts";
import { fileRoutes } from "./routes/files.ts";
import { imageRoutes } from "./routes/images.ts";
import { systemRoutes } from "./routes/system.ts";
import type { Tickets } from "./tickets.ts";

/** Makes the application. */
export function createApp(
  parts: HttpParts,
  authenticator: Authenticator,
  tickets: Tickets,
): OpenAPIHono<Env> {
  const app = new OpenAPIHono<Env>();
  app.use(async (c, next) => {
    const actor = await authenticator.actor(
      { path: c.req.path, trusted: c.env.trusted === true, header: (name) => c.req.header(name) },
      c.req.raw.signal,
    );
    if (actor !== undefined) c.set("actor", actor);
    await next();
    c.header("cache-control", "no-store");
  });
  app.onError((error) => problemResponse(problemOf(error, parts.log)));
  app.notFound((c) =>
    problemResponse(
      problemOf(
        new Fault("not_found", `No route ${c.req.method} ${c.req.path}`, {
          hint: "See /api/openapi.json for every route",
        }),
        parts.log,
      ),
    ),
  );
  addRoutes(app, [
    ...systemRoutes(parts, tickets),
    ...botRoutes(parts),
    ...containerRoutes(parts),
    ...fileRoutes(parts),
    ...execRoutes(parts),
    ...imageRoutes(parts),
  ]);
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", { type: "http", scheme: "bearer" });
  app.doc31("/api/openapi.json", {
    openapi: "3.1.0",
    info: { title: "memoh", version: parts.version, license: { name: "Apache-2.0" } },
  });
  return app;
}
