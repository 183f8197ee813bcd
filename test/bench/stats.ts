// Figures of a series: percentiles, and ratios against a reference measured in the same run.

/** Milliseconds of one series. */
export interface Series {
  readonly name: string;
  readonly values: readonly number[];
}

/** The p-th percentile by nearest rank. */
export function percentile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN;
}

/** Runs the work `n` times after `warmup` unmeasured ones. */
export async function measure(
  name: string,
  n: number,
  warmup: number,
  work: (round: number) => Promise<void>,
): Promise<Series> {
  const values: number[] = [];
  for (let round = -warmup; round < n; round++) {
    const started = performance.now();
    await work(round + warmup);
    if (round >= 0) values.push(performance.now() - started);
  }
  return { name, values };
}

/** One row of the report. */
export interface Row {
  readonly what: string;
  readonly figures: string;
  readonly reference: string;
  readonly ratio: string;
}

/** p50 and p99 beside a reference, and how many times faster than it. */
export function compare(series: Series, reference: Series | undefined): Row {
  const figures = (each: Series) =>
    `p50 ${percentile(each.values, 50).toFixed(1)} ms, p99 ${percentile(each.values, 99).toFixed(1)} ms (n=${each.values.length})`;
  return {
    what: series.name,
    figures: figures(series),
    reference: reference === undefined ? "" : `${reference.name}: ${figures(reference)}`,
    ratio:
      reference === undefined
        ? ""
        : `${(percentile(reference.values, 50) / percentile(series.values, 50)).toFixed(2)}x faster`,
  };
}

/** Throughput in MiB/s beside a reference, and what share of it that is. */
export function throughput(
  what: string,
  rates: readonly number[],
  reference: string,
  referenceRates: readonly number[],
): Row {
  const mid = percentile(rates, 50);
  const referenceMid = percentile(referenceRates, 50);
  return {
    what,
    figures: `${mid.toFixed(0)} MiB/s (${Math.min(...rates).toFixed(0)}-${Math.max(...rates).toFixed(0)}, n=${rates.length})`,
    reference: `${reference}: ${referenceMid.toFixed(0)} MiB/s`,
    ratio: `${(mid / referenceMid).toFixed(2)} of it`,
  };
}

/** The report as a Markdown table. */
export function table(rows: readonly Row[]): string {
  const lines = rows.map((row) => `| ${row.what} | ${row.figures} | ${row.reference} | ${row.ratio} |`);
  return ["| what | measured | reference in the same run | ratio |", "|---|---|---|---|", ...lines].join(
    "\n",
  );
}
