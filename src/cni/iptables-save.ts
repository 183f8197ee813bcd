// Foreign world: the text of iptables-save, rules in a form in which equal rules are equal strings.

/** One rule as saved. */
export interface SavedRule {
  /** What follows the chain's name, as printed: usable again with -D. */
  readonly text: string;
  /** The same rule in canonical form. */
  readonly canonical: string;
  /** Target of an unconditional jump, `-j X` and nothing else. */
  readonly jump: string | undefined;
}

/** Chains of one table by name, in order of their rules. */
export type SavedTable = ReadonlyMap<string, readonly SavedRule[]>;

/** Reads all tables. Lines it does not know are skipped. */
export function parseSave(text: string): ReadonlyMap<string, SavedTable> {
  const tables = new Map<string, Map<string, SavedRule[]>>();
  let table = new Map<string, SavedRule[]>();
  for (const line of text.split("\n")) {
    const [kind = "", name = ""] = line.split(" ", 2);
    if (line.startsWith("*")) {
      table = new Map();
      tables.set(line.slice(1).trim(), table);
    } else if (line.startsWith(":")) {
      table.set(kind.slice(1), []);
    } else if (kind === "-A") {
      const rule = line.slice(kind.length + name.length + 2).trim();
      const rules = table.get(name) ?? [];
      table.set(name, rules);
      rules.push({ text: rule, canonical: canonicalRule(rule), jump: /^-j (\S+)$/.exec(rule)?.[1] });
    }
  }
  return tables;
}

/**
 * Brings a rule into one form: iptables prints options in another order than they were given, names the match before
 * its options, and writes a single address with its mask.
 */
export function canonicalRule(rule: string): string {
  const options: string[][] = [];
  let negated = false;
  for (const token of tokens(rule)) {
    if (token === "!") {
      negated = true;
    } else if (token.startsWith("-")) {
      options.push(negated ? ["!", token] : [token]);
      negated = false;
    } else {
      options.at(-1)?.push(token);
    }
  }
  return options
    .filter((option) => option[0] !== "-m")
    .map(canonicalOption)
    .sort()
    .join(" ");
}

function canonicalOption(option: readonly string[]): string {
  const [name = ""] = option[0] === "!" ? option.slice(1) : option;
  return option
    .map((word) => {
      if ((name === "-s" || name === "-d") && /^[\d.]+$/.test(word)) return `${word}/32`;
      if (name === "--ctstate" && word !== name) return word.split(",").sort().join(",");
      return word;
    })
    .join(" ");
}

/** Words, quoted ones (comments) kept together. */
function tokens(rule: string): string[] {
  return rule.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? [];
}
