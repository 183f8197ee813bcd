// Who may do what: roles of callers and the two access rules of the routes.
import { Fault } from "../lib/fault.ts";

/** `admin` may do everything; `owner` and `guest` only with the bots they name. */
export type Role = "admin" | "owner" | "guest";

/** An authenticated caller. */
export interface Actor {
  /** User id, or `admin` for the unix socket. */
  readonly id: string;
  readonly role: Role;
  /** Ids of the bots a token names; a user's own bots come from the store instead. */
  readonly botIds: readonly string[];
}

/** The caller behind the unix socket. */
export const SOCKET_ACTOR: Actor = { id: "admin", role: "admin", botIds: [] };

/** What a route does with a bot. */
export type Action = "read" | "change";

/** Whether the actor may; guests read, everything else needs the owner or an admin. */
export function mayAccess(
  actor: Actor,
  bot: { readonly id: string; readonly ownerId: string },
  action: Action,
): boolean {
  if (actor.role === "admin") return true;
  const named = actor.botIds.includes(bot.id);
  if (actor.role === "owner") return named || bot.ownerId === actor.id;
  return action === "read" && named;
}

/** @throws Fault permission_denied, in the original's words */
export function requireAccess(
  actor: Actor,
  bot: { readonly id: string; readonly ownerId: string },
  action: Action,
): void {
  if (!mayAccess(actor, bot, action)) throw new Fault("permission_denied", "bot access denied");
}

/** @throws Fault permission_denied */
export function requireAdmin(actor: Actor): void {
  if (actor.role !== "admin") {
    throw new Fault("permission_denied", "Only an admin may do this", {
      hint: "Use a token with the role admin",
    });
  }
}
