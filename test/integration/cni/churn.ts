// A host that sets up and removes containers until it is killed; started by the attachment test.
import { CniNetwork } from "../../../src/cni/network.ts";
import { silentLogger } from "../../../src/lib/log.ts";

interface Order {
  readonly instance: string;
  readonly bridge: string;
  readonly runDir: string;
  readonly subnet: string;
  readonly ids: readonly string[];
}

const { ids, ...options } = JSON.parse(process.argv[2] ?? "") as Order;
const network = new CniNetwork({ ...options, log: silentLogger() });
await network.ensureHost();
process.stdout.write("ready\n");
for (;;) {
  await Promise.all(
    ids.map(async (id) => {
      await network.setup(id);
      await network.remove(id);
    }),
  );
}
