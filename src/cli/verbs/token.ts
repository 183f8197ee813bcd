// memoh token: create, list, delete.
import type { Items, TokenJson } from "../api-types.ts";
import { formatAge, printFields, printJson, printTable } from "../io.ts";
import { apiOf, group, jsonOption, verb } from "../verb.ts";

const create = verb<{ name: string; role: string; bot: string[]; json: boolean }>({
  command: "create [name]",
  describe: "Make a token for the HTTP API; it is shown once",
  examples: [
    ["token create ci --role admin", "may do everything"],
    ["token create viewer --role guest --bot demo", "may read one bot"],
  ],
  options: (yargs) =>
    jsonOption(yargs)
      .positional("name", { type: "string", default: "default", describe: "What it is for" })
      .option("role", {
        choices: ["admin", "owner", "guest"],
        default: "admin",
        describe: "What it may do; owner and guest only with the bots it names",
      })
      .option("bot", {
        type: "string",
        array: true,
        default: [],
        describe: "A bot it is for; repeat for more",
      }),
  run: async (args, io) => {
    const token = (await (
      await apiOf(args)
    ).json({
      method: "POST",
      path: "/tokens",
      json: { name: args.name, role: args.role, bots: args.bot },
      signal: io.signal,
    })) as TokenJson;
    if (args.json) await printJson(io, token);
    else {
      await printFields(io, [
        ["token", token.token ?? ""],
        ["id", token.id],
        ["role", token.role],
      ]);
      io.stderr.write("Keep it safe: it is not shown again\n");
    }
    return 0;
  },
});

const list = verb<{ json: boolean }>({
  command: "list",
  describe: "List tokens",
  examples: [["token list", "who may come in"]],
  options: (yargs) => jsonOption(yargs),
  run: async (args, io) => {
    const { items } = (await (
      await apiOf(args)
    ).json({
      path: "/tokens",
      signal: io.signal,
    })) as Items<TokenJson>;
    if (args.json) await printJson(io, items);
    else {
      await printTable(
        io,
        ["ID", "NAME", "ROLE", "BOTS", "AGE", "LAST USED"],
        items.map((token) => [
          token.id,
          token.name,
          token.role,
          token.bots.length === 0 ? "-" : token.bots.join(","),
          formatAge(token.created_at),
          token.last_used_at === null ? "never" : `${formatAge(token.last_used_at)} ago`,
        ]),
      );
    }
    return 0;
  },
});

const remove = verb<{ id: string }>({
  command: "delete <id>",
  describe: "Revoke a token",
  examples: [["token delete 5b0c…", "by its id in `token list`"]],
  options: (yargs) => yargs.positional("id", { type: "string", demandOption: true, describe: "Its id" }),
  run: async (args, io) => {
    await (await apiOf(args)).json({
      method: "DELETE",
      path: `/tokens/${encodeURIComponent(args.id)}`,
      signal: io.signal,
    });
    io.stderr.write("Revoked\n");
    return 0;
  },
});

export const token = group("token", "Make, list and revoke tokens of the HTTP API", [create, list, remove]);
