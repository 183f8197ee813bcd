// Turns migrations/*.sql into src/gen/migrations.ts, so that the one executable carries its own schema.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const FILE = /^(\d{4})_([a-z0-9_]+)\.(up|down)\.sql$/;
/** Each file is one transaction of the runner's; a file that ends it early would leave itself half applied. */
const ENDS_TRANSACTION = /^\s*(commit|rollback|start\s+transaction|begin\s*;)/im;

interface Pair {
  readonly version: number;
  readonly name: string;
  up?: string;
  down?: string;
}

/**
 * The generated module for a folder of migrations.
 * @throws Error naming the file that is misnamed, doubled, alone or ends its transaction
 */
export async function renderMigrations(folder: string): Promise<string> {
  const pairs = new Map<number, Pair>();
  for (const file of (await readdir(folder)).sort()) {
    const [, digits, name, direction] = FILE.exec(file) ?? [];
    if (digits === undefined || name === undefined || (direction !== "up" && direction !== "down")) {
      throw new Error(`migrations/${file}: the name must be NNNN_name.up.sql or NNNN_name.down.sql`);
    }
    const version = Number(digits);
    const pair: Pair = pairs.get(version) ?? { version, name };
    if (pair.name !== name) {
      throw new Error(
        `migrations/${file}: number ${digits} is taken by ${pair.name}; take the next free one`,
      );
    }
    const sql = await readFile(join(folder, file), "utf8");
    if (ENDS_TRANSACTION.test(sql)) {
      throw new Error(`migrations/${file}: must not begin or end a transaction, the runner does`);
    }
    pair[direction] = sql;
    pairs.set(version, pair);
  }
  const entries = [...pairs.values()].map(({ version, name, up, down }) => {
    if (up === undefined || down === undefined) {
      throw new Error(`migrations/: ${name} lacks its ${up === undefined ? "up" : "down"} file`);
    }
    return `  {\n    version: ${version},\n    name: "${name}",\n    up: ${literal(up)},\n    down: ${literal(down)},\n  },\n`;
  });
  return `// Generated from migrations/*.sql by build/gen-migrations.ts. Do not edit.

/** One step of the schema: how to go there and back. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly up: string;
  readonly down: string;
}

/** Every migration this program knows, oldest first. */
export const MIGRATIONS: readonly Migration[] = [
${entries.join("")}];
`;
}

function literal(text: string): string {
  return `\`${text.replaceAll("\\", "\\\\").replaceAll("`", "\\`").replaceAll("${", "\\${")}\``;
}

if (import.meta.main) {
  const root = join(import.meta.dirname, "..");
  await writeFile(join(root, "src/gen/migrations.ts"), await renderMigrations(join(root, "migrations")));
}
