// The room rules of ARCHITECTURE as a function from sources to what breaks them, so that the rules can be tested too.
import { posix } from "node:path";

/** What a room may import: rooms, or files of rooms (`http/client`), statically or only by `import()`. */
interface Room {
  readonly imports: readonly string[];
  readonly lazily?: readonly string[];
  /** Files of the room that may import every other one. */
  readonly compose?: readonly string[];
}

/** The table. npm packages and node: modules are for every room. */
export const ROOMS: Readonly<Record<string, Room>> = {
  "main.ts": { imports: ["cli/version", "lib"], lazily: ["cli", "agent"] },
  cli: { imports: ["lib", "core", "config", "http/client"], lazily: ["host", "agent"] },
  config: { imports: ["lib"] },
  core: { imports: ["lib"] },
  host: {
    imports: ["lib", "core", "config", "gen/docker-files"],
    compose: ["host/compose", "host/compose-stop"],
  },
  agent: { imports: ["lib", "core", "config", "rpc", "gen"] },
  remote: { imports: ["lib", "core", "rpc", "gen"] },
  containerd: { imports: ["lib", "core", "rpc", "gen", "oci"] },
  cni: { imports: ["lib", "core"] },
  oci: { imports: ["lib"] },
  store: { imports: ["lib", "core", "gen"] },
  http: { imports: ["lib", "core"] },
  mcp: { imports: ["lib", "core"] },
  tools: { imports: ["lib", "core"] },
  "bot-data": { imports: ["lib", "core"] },
  rpc: { imports: ["lib", "gen"] },
  lib: { imports: [] },
  gen: { imports: [] },
};

interface Import {
  readonly target: string;
  readonly lazy: boolean;
  readonly typeOnly: boolean;
}

const STATIC = /^(?:import|export)\s+(type\s+)?(?:[^;"']*?\sfrom\s+)?["']([^"']+)["']/gm;
const LAZY = /\bimport\(\s*["']([^"']+)["']/g;

/** Imports of our own files in a source, as paths below src. */
export function importsOf(file: string, source: string): Import[] {
  const ours = (target: string) =>
    target.startsWith(".") ? posix.normalize(posix.join(posix.dirname(file), target)) : undefined;
  const found: Import[] = [];
  for (const [, type, specifier = ""] of source.matchAll(STATIC)) {
    const target = ours(specifier);
    if (target !== undefined) found.push({ target, lazy: false, typeOnly: type !== undefined });
  }
  for (const [, specifier = ""] of withoutComments(source).matchAll(LAZY)) {
    const target = ours(specifier);
    if (target !== undefined) found.push({ target, lazy: true, typeOnly: false });
  }
  return found;
}

/** Every broken rule as a sentence. @param files path below src → source */
export function brokenRules(files: ReadonlyMap<string, string>): string[] {
  const broken: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [file, source] of files) {
    const room = ROOMS[roomOf(file)];
    if (room === undefined) {
      broken.push(`${file}: no such room`);
      continue;
    }
    const imports = importsOf(file, source);
    graph.set(
      file,
      imports.filter((entry) => !entry.lazy && !entry.typeOnly).map((entry) => entry.target),
    );
    for (const { target, lazy } of imports) {
      if (!mayImport(file, room, target, lazy)) broken.push(`${file}: may not import ${target}`);
      else if (!files.has(target)) broken.push(`${file}: imports ${target}, which is not there`);
    }
    if (roomOf(file) === "gen") continue;
    const code = withoutComments(source);
    if (isBarrel(code)) broken.push(`${file}: is a barrel`);
    if (file !== "main.ts" && /\bprocess\s*\.\s*exit\s*\(/.test(code)) {
      broken.push(`${file}: process.exit belongs in main.ts`);
    }
    if (roomOf(file) !== "config" && /\bprocess\s*(\.\s*env\b|\[\s*["']env)/.test(code)) {
      broken.push(`${file}: process.env belongs in config/`);
    }
  }
  for (const cycle of cyclesOf(graph)) broken.push(`cycle: ${cycle.join(" → ")}`);
  return broken;
}

function roomOf(file: string): string {
  return file.includes("/") ? file.slice(0, file.indexOf("/")) : file;
}

function mayImport(file: string, room: Room, target: string, lazy: boolean): boolean {
  if (target.startsWith("../") || roomOf(target) === "main.ts") return false;
  if (roomOf(target) === roomOf(file)) return true;
  if (room.compose?.some((part) => within(file, part)) === true) return true;
  const allowed = lazy ? [...room.imports, ...(room.lazily ?? [])] : room.imports;
  return allowed.some((part) => within(target, part));
}

/** `http/client` holds http/client.ts and http/client/…; `http` the whole room. */
function within(file: string, part: string): boolean {
  return file.startsWith(`${part}/`) || file === `${part}.ts`;
}

/** Comments out, so that prose about `process.env` breaks no rule. */
function withoutComments(source: string): string {
  return source.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1");
}

/** Nothing but re-exports. */
function isBarrel(code: string): boolean {
  const rest = code.replaceAll(
    /^export\s+(type\s+)?(\*(\s+as\s+\w+)?|\{[^}]*\})\s+from\s+["'][^"']+["'];?$/gm,
    "",
  );
  return code.trim() !== "" && rest.trim() === "";
}

/** Import cycles, each once, starting at its first file by name. */
function cyclesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles = new Map<string, string[]>();
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const at = path.indexOf(file);
    if (at !== -1) {
      const cycle = path.slice(at);
      const first = cycle.indexOf(cycle.toSorted()[0] ?? file);
      const turned = [...cycle.slice(first), ...cycle.slice(0, first)];
      cycles.set(turned.join(), [...turned, turned[0] ?? file]);
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const target of graph.get(file) ?? []) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of graph.keys()) visit(file);
  return [...cycles.values()];
}
