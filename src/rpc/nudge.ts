// Keeps a connection of Bun's HTTP/2 server moving: while one of its streams waits for its reader, Bun can leave the
// frames of others queued until something arrives from the client. A ping makes something arrive. Node needs none of it.

interface Session {
  readonly destroyed: boolean;
  ping(callback: () => void): boolean;
}

const FIRST_MS = 5;
const LONGEST_MS = 100;

/** Pings the client of a server call until disposed. Use it while the call waits to write. */
export function nudge(call: object): Disposable {
  const session = process.versions["bun"] === undefined ? undefined : sessionOf(call);
  if (session === undefined) return { [Symbol.dispose]: () => undefined };
  let pause = FIRST_MS;
  let timer: NodeJS.Timeout;
  const ping = () => {
    if (session.destroyed) return;
    session.ping(() => undefined);
    pause = Math.min(pause * 2, LONGEST_MS);
    timer = setTimeout(ping, pause);
  };
  timer = setTimeout(ping, pause);
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
    },
  };
}

/** The HTTP/2 session under a call, which grpc-js keeps to itself. */
function sessionOf(call: object): Session | undefined {
  let at: unknown = call;
  for (const key of ["call", "stream", "session"]) {
    if (typeof at !== "object" || at === null) return undefined;
    at = Reflect.get(at, key);
  }
  return typeof at === "object" && at !== null && "ping" in at ? (at as Session) : undefined;
}
