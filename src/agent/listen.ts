// Binding the agent's server: an address of the network, or a unix socket that is nobody else's.
import { chmod, lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import type { AgentListen } from "../config/agent-config.ts";
import { errnoOf, faultFromErrno } from "../lib/errno.ts";
import { Fault } from "../lib/fault.ts";
import type { RpcServer, ServerTls } from "../rpc/server.ts";

/**
 * Binds the server.
 * @returns where it is reached: `host:port` with the real port, or `unix:/path`
 * @throws Fault already_exists when the address is taken, failed_precondition when the socket's path is something else
 */
export async function listenOn(
  server: RpcServer,
  listen: AgentListen,
  tls: ServerTls | undefined,
): Promise<string> {
  if (listen.kind === "tcp") {
    const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
    return `${host}:${await server.listen(`${host}:${listen.port}`, tls)}`;
  }
  await removeStaleSocket(listen.path);
  // Nobody else may connect in the moment before the mode is set.
  const before = process.umask(0o177);
  try {
    await server.listen(`unix:${listen.path}`);
  } finally {
    process.umask(before);
  }
  await chmod(listen.path, 0o600);
  return `unix:${listen.path}`;
}

/** Removes the socket file of an agent that is no more. */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    if (!(await lstat(path)).isSocket()) {
      throw new Fault("failed_precondition", `Cannot listen on unix:${path}: the path is not a socket`, {
        hint: "Choose another path, or remove what is there",
      });
    }
    if (await answers(path)) {
      throw new Fault("already_exists", `Cannot listen on unix:${path}: another program serves there`, {
        hint: "Stop the program that holds the address, or choose another one",
      });
    }
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw faultFromErrno(error, `Cannot listen on unix:${path}`);
  }
}

async function answers(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.once("connect", () => {
    resolve(true);
  });
  socket.once("error", (error) => {
    if (errnoOf(error) === "ECONNREFUSED") resolve(false);
    else reject(error);
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
