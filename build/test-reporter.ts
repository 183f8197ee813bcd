// Reporter of node:test for build/test-files.ts: one JSON line per test as it ends, suites left out.
import type { TestEvent } from "node:test/reporters";

/** One line. */
export interface TestLine {
  readonly name: string;
  readonly result: "passed" | "failed" | "skipped";
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details.type === "suite") continue;
    const set = (mark: string | boolean | undefined) => mark !== undefined && mark !== false;
    const skipped = set(data.skip) || set(data.todo);
    const line: TestLine = {
      name: data.name,
      result: skipped ? "skipped" : type === "test:pass" ? "passed" : "failed",
    };
    yield `${JSON.stringify(line)}\n`;
  }
}
