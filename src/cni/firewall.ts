// Checks memoh's chains with one iptables-save and puts right what differs in one transaction per table.
import type { NetworkFinding } from "../core/network.ts";
import { Fault } from "../lib/fault.ts";
import { sleep } from "../lib/signal.ts";
import { type ChainPlan, rankOf } from "./firewall-rules.ts";
import { hostCommand } from "./host-command.ts";
import { canonicalRule, parseSave, type SavedRule, type SavedTable } from "./iptables-save.ts";

/** The programs of one address family. `iptables` is whatever the distribution chose, nft or legacy. */
export interface FirewallTools {
  readonly family: "IPv4" | "IPv6";
  readonly save: string;
  readonly restore: string;
}

export const IPV4_TOOLS: FirewallTools = {
  family: "IPv4",
  save: "iptables-save",
  restore: "iptables-restore",
};
export const IPV6_TOOLS: FirewallTools = {
  family: "IPv6",
  save: "ip6tables-save",
  restore: "ip6tables-restore",
};

const ROUNDS = 5;

/**
 * Makes the host's firewall match the plan: each chain with exactly its rules, one jump to it before everything that
 * is not memoh's. Other people's chains and rules are left alone.
 * @returns what was wrong
 * @throws Fault when it cannot be put right
 */
export async function ensureFirewall(
  plan: readonly ChainPlan[],
  tools: FirewallTools,
  signal?: AbortSignal,
): Promise<NetworkFinding[]> {
  const found = new Set<string>();
  // Several rounds, because another instance may repair its own jumps at the same moment, and the order is shared.
  for (let round = 0; round < ROUNDS; round++) {
    if (round > 1) await sleep(Math.random() * 100 * round, signal);
    const saved = parseSave(await hostCommand([tools.save], { signal }));
    const wrong = differences(plan, saved);
    if (wrong.length === 0)
      return [...found].map((what) => ({ what: `${tools.family}: ${what}`, repaired: true }));
    for (const { what } of wrong) found.add(what);
    const tables = new Set(wrong.map((difference) => difference.table));
    const input = [...tables].map((table) => repairText(plan, table, saved.get(table))).join("");
    await hostCommand([tools.restore, "--noflush", "--wait", "10"], { input, signal });
  }
  throw new Fault("unavailable", `Cannot keep the ${tools.family} firewall right: ${[...found].join(", ")}`, {
    hint: "Find out which other program rewrites the rules of this host",
  });
}

/** Takes all chains of the plan and every jump to them away. Nothing there is success. */
export async function removeFirewall(
  plan: readonly ChainPlan[],
  tools: FirewallTools,
  signal?: AbortSignal,
): Promise<void> {
  const ours = new Set(plan.map((chain) => chain.name));
  let input = "";
  for (const [name, table] of parseSave(await hostCommand([tools.save], { signal }))) {
    const mine = [...table.keys()].filter((chain) => ours.has(chain));
    if (mine.length === 0) continue;
    const jumps = [...table].flatMap(([chain, rules]) =>
      ours.has(chain)
        ? []
        : rules.filter((rule) => mentions(rule, ours)).map((rule) => `-D ${chain} ${rule.text}`),
    );
    input += section(name, [...mine.map(declaration), ...jumps, ...mine.map((chain) => `-X ${chain}`)]);
  }
  if (input !== "") await hostCommand([tools.restore, "--noflush", "--wait", "10"], { input, signal });
}

interface Difference {
  readonly table: string;
  readonly what: string;
}

function differences(plan: readonly ChainPlan[], saved: ReadonlyMap<string, SavedTable>): Difference[] {
  return plan.flatMap((chain) => {
    const table = saved.get(chain.table);
    const rules = table?.get(chain.name);
    const found: string[] = [];
    if (rules === undefined) found.push(`firewall chain ${chain.name} was missing`);
    else if (!sameRules(rules, chain.rules)) found.push(`firewall chain ${chain.name} had other rules`);
    const jumps = jumpFault(chain, table?.get(chain.from) ?? []);
    if (jumps !== undefined) found.push(jumps);
    return found.map((what) => ({ table: chain.table, what }));
  });
}

function sameRules(saved: readonly SavedRule[], wanted: readonly string[]): boolean {
  return (
    saved.length === wanted.length &&
    saved.every((rule, index) => rule.canonical === canonicalRule(wanted[index] ?? ""))
  );
}

/** What is wrong with the jumps of a built-in chain to one of ours. */
function jumpFault(chain: ChainPlan, rules: readonly SavedRule[]): string | undefined {
  const first = rules.findIndex((rule) => rule.jump === chain.name);
  if (first === -1) return `the jump from ${chain.from} to ${chain.name} was missing`;
  if (rules.filter((rule) => rule.jump === chain.name).length > 1) {
    return `the jump from ${chain.from} to ${chain.name} was there twice`;
  }
  const behind = rules.slice(0, first).some((rule) => (rankOf(rule.jump ?? "") ?? 2) > chain.rank);
  return behind ? `the jump from ${chain.from} to ${chain.name} was not first` : undefined;
}

/** Input for iptables-restore --noflush: naming a chain of ours empties it, the rest is done in order. */
function repairText(plan: readonly ChainPlan[], name: string, table: SavedTable | undefined): string {
  const chains = plan.filter((chain) => chain.table === name);
  const ours = new Set(chains.map((chain) => chain.name));
  const lines = chains.map((chain) => declaration(chain.name));
  for (const chain of chains) lines.push(...chain.rules.map((rule) => `-A ${chain.name} ${rule}`));
  for (const from of new Set(chains.map((chain) => chain.from))) {
    const rules = table?.get(from) ?? [];
    const others = rules.filter((rule) => rule.jump === undefined || !ours.has(rule.jump));
    lines.push(
      ...rules.filter((rule) => !others.includes(rule)).map((rule) => `-D ${from} ${rule.text}`),
      ...jumpsFrom(chains, from, others),
    );
  }
  return section(name, lines);
}

/** Our jumps: first of all those of rank 0, then, behind other instances' of rank 0, those of rank 1. */
function jumpsFrom(chains: readonly ChainPlan[], from: string, others: readonly SavedRule[]): string[] {
  const rest = others.findIndex((rule) => rankOf(rule.jump ?? "") !== 0);
  const guards = rest === -1 ? others.length : rest;
  const mine = chains.filter((chain) => chain.from === from);
  const first = mine.filter((chain) => chain.rank === 0);
  const second = mine.filter((chain) => chain.rank === 1);
  return [
    ...first.map((chain, index) => `-I ${from} ${index + 1} -j ${chain.name}`),
    ...second.map((chain, index) => `-I ${from} ${first.length + guards + index + 1} -j ${chain.name}`),
  ];
}

function mentions(rule: SavedRule, chains: ReadonlySet<string>): boolean {
  const target = / ?-[jg] (\S+)/.exec(rule.text)?.[1];
  return target !== undefined && chains.has(target);
}

function declaration(chain: string): string {
  return `:${chain} - [0:0]`;
}

function section(table: string, lines: readonly string[]): string {
  return `*${table}\n${lines.join("\n")}\nCOMMIT\n`;
}
