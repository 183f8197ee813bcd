// OpenAPI: every route is declared once, with its schemas, and served as /api/openapi.json.
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import type { Env, RequestContext } from "./context.ts";

type Verb = "get" | "post" | "put" | "delete";

/** One route: what it takes, what it answers, and the function that does it. */
export interface RouteSpec {
  readonly method: Verb;
  /** With `{bot_id}` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly tag: string;
  readonly query?: z.ZodObject;
  /** Schema of a JSON body; only documents, routes parse with `bodyOf`. */
  readonly body?: z.ZodType;
  /** Schema of the JSON answer, by status. */
  readonly answers?: Readonly<Record<number, { readonly description: string; readonly schema?: z.ZodType }>>;
  readonly handle: (c: RequestContext) => Promise<Response> | Response;
}

const PROBLEM = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number(),
    detail: z.string(),
    code: z.string(),
    message: z.string(),
    hint: z.string().optional(),
    reference: z.string().optional(),
  })
  .openapi("Problem");

/** Adds the routes to the application, with their documentation. */
export function addRoutes(app: OpenAPIHono<Env>, routes: readonly RouteSpec[]): void {
  for (const spec of routes) {
    const params = [...spec.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? "");
    const answers = spec.answers ?? { 200: { description: "Done" } };
    const route = createRoute({
      method: spec.method,
      path: spec.path,
      summary: spec.summary,
      tags: [spec.tag],
      security: [{ bearer: [] }],
      request: {
        ...(params.length === 0
          ? {}
          : { params: z.object(Object.fromEntries(params.map((name) => [name, z.string()]))) }),
        ...(spec.query === undefined ? {} : { query: spec.query }),
      },
      responses: {
        ...Object.fromEntries(
          Object.entries(answers).map(([status, answer]) => [
            status,
            {
              description: answer.description,
              ...(answer.schema === undefined
                ? {}
                : { content: { "application/json": { schema: answer.schema } } }),
            },
          ]),
        ),
        default: {
          description: "An error",
          content: { "application/problem+json": { schema: PROBLEM } },
        },
      },
    });
    app.openAPIRegistry.registerPath({
      ...route,
      ...(spec.body === undefined
        ? {}
        : {
            request: {
              ...route.request,
              body: { content: { "application/json": { schema: spec.body } } },
            },
          }),
    });
    // Registered by hand: the body is parsed by the route, under its own size limit.
    app.on(spec.method.toUpperCase(), spec.path.replaceAll(/\{(\w+)\}/g, ":$1"), spec.handle);
  }
}
