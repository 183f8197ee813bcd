// Sessions of processes (setsid), read from /proc: who belongs to one.
import { readdirSync, readFileSync } from "node:fs";

/** Ids of the living processes of a session, its leader included. Zombies are not alive. */
export function sessionMembers(sid: number): number[] {
  const members: number[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const stat = readStat(pid);
    if (stat !== undefined && stat.session === sid && !"ZXx".includes(stat.state)) members.push(pid);
  }
  return members;
}

/** Sends a signal to every process of a session. @returns how many there were */
export function signalSession(sid: number, ...signals: readonly NodeJS.Signals[]): number {
  const members = sessionMembers(sid);
  for (const pid of members) {
    for (const signal of signals) {
      try {
        process.kill(pid, signal);
      } catch {
        break; // It ended since it was listed.
      }
    }
  }
  return members.length;
}

function readStat(pid: number): { state: string; session: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined; // It ended since it was listed.
  }
  // The name in parentheses may hold anything, so fields are counted from the last one.
  const [state = "X", , , session] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state, session: Number(session) };
}
