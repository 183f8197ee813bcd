// One host per instance: a lock that the kernel frees when its holder dies.
import { createHash } from "node:crypto";
import { createServer } from "node:net";
import { errnoOf } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";

/**
 * Holds the lock of a run directory until disposed. It is an abstract unix socket: taken by one process at a time, with
 * no file that could be stale.
 * @throws Fault already_exists when another host holds it
 */
export async function holdHostLock(runDir: string): Promise<AsyncDisposable> {
  const name = `\0memoh-host-${createHash("sha256").update(runDir).digest("hex").slice(0, 24)}`;
  const server = createServer((socket) => socket.destroy());
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("listening", resolve);
  server.once("error", (error) => {
    reject(
      errnoOf(error) === "EADDRINUSE"
        ? new Fault("already_exists", `Cannot start: a host of ${runDir} is already running`, {
            hint: "Stop it first: memoh host --stop, or give this one another --instance",
          })
        : Fault.from(error, "Cannot take the host's lock"),
    );
  });
  server.listen(name);
  await promise;
  server.unref();
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = Promise.withResolvers<void>();
      server.close(() => {
        closed.resolve();
      });
      await closed.promise;
    },
  };
}
