// The process of a Peer: serves and dials TCP inside the network namespace it was started in, ordered by JSON lines.
import { createConnection, createServer } from "node:net";
import { createInterface } from "node:readline";

interface Order {
  readonly id: number;
  readonly kind: "listen" | "connect";
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line) as Order;
  const answer = (result: Record<string, unknown>) => {
    process.stdout.write(`${JSON.stringify({ id: order.id, ...result })}\n`);
  };
  if (order.kind === "listen") {
    // Says who it sees, so that address translation shows.
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.end(String(socket.remoteAddress).replace(/^::ffff:/, ""));
    });
    server.on("error", (error) => {
      answer({ error: error.message });
    });
    server.listen(order.port, order.host, () => {
      answer({});
    });
  } else {
    const socket = createConnection({ host: order.host, port: order.port });
    let said = "";
    const timer = setTimeout(() => {
      socket.destroy();
      answer({ open: false, said: "no answer" });
    }, order.timeoutMs);
    socket.on("data", (data) => {
      said += data.toString();
    });
    socket.on("error", (error) => {
      clearTimeout(timer);
      answer({ open: false, said: error.message });
    });
    socket.on("end", () => {
      clearTimeout(timer);
      answer({ open: true, said });
    });
  }
}
process.exit(0);
