// A TCP port before a Postgres that can stop answering in several ways.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { socketFile } from "../../src/store/connection.ts";
import { type DatabaseTarget, databaseTarget } from "../../src/store/target.ts";

/** How the port treats connections. */
export type ProxyMode = "up" | "down" | "silent" | "hangup";

/** Starts the port; disposing cuts everything. */
export async function startProxy(behind: DatabaseTarget, first: ProxyMode) {
  const sockets = new Set<Socket>();
  let count = 0;
  const proxy = { mode: first };
  const server = createServer((client) => {
    count++;
    sockets.add(client);
    client.on("error", () => client.destroy());
    if (proxy.mode === "hangup" || proxy.mode === "down") {
      client.end();
      return;
    }
    const upstream = connect(socketFile(behind));
    sockets.add(upstream);
    upstream.on("error", () => upstream.destroy());
    client.on("close", () => upstream.destroy());
    upstream.on("close", () => client.destroy());
    client.on("data", (data) => {
      if (proxy.mode === "up") upstream.write(data);
    });
    upstream.on("data", (data) => {
      if (proxy.mode === "up") client.write(data);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return Object.assign(proxy, {
    target: databaseTarget({ ...behind, host: "127.0.0.1", port, password: "", tls: "disable" }),
    connections: () => count,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  });
}
