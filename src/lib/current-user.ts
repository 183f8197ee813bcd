// The name of the user this process runs as. os.userInfo() of Bun takes it from the environment and says "unknown".
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";

/** The name in /etc/passwd of the process's user id; the runtime's word for it when it is not there. */
export function currentUser(): string {
  const uid = String(process.getuid?.() ?? "");
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name, , id] = line.split(":");
    if (id === uid && name !== undefined) return name;
  }
  return userInfo().username;
}
