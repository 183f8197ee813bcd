// Who a caller is: random tokens kept as hashes, and JWTs of the configured secret.
import { createHash, randomBytes } from "node:crypto";
import type { HostConfig } from "../config/host-config.ts";
import type { Actor, Role } from "../core/access.ts";
import type { NewToken } from "../core/control.ts";
import type { Store } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";

/** Marks our tokens, so that leaked ones can be found by scanners. */
const PREFIX = "memoh_";
const ID_CHARSET = /^[A-Za-z0-9_-]{1,128}$/;

/** Makes and checks tokens. */
export class Tokens {
  readonly #store: () => Store;
  readonly #jwtSecret: HostConfig["auth"]["jwtSecret"];

  constructor(store: () => Store, jwtSecret: HostConfig["auth"]["jwtSecret"]) {
    this.#store = store;
    this.#jwtSecret = jwtSecret;
  }

  /** A new token; its text is returned once and stored nowhere. */
  async create(
    input: { name: string; role: Role; botIds: readonly string[] },
    wait?: Wait,
  ): Promise<NewToken> {
    if (input.role === "guest" && input.botIds.length === 0) {
      throw new Fault("invalid_argument", "Cannot make a guest token that names no bot", {
        hint: "Add --bot BOT",
      });
    }
    const userId = `token-${input.name}`;
    await this.#store().ensureUser({ id: userId, name: userId, role: input.role }, wait);
    const token = `${PREFIX}${randomBytes(32).toString("base64url")}`;
    const record = await this.#store().tokens.create({ ...input, userId, hash: hashOf(token) }, wait);
    return { ...record, token };
  }

  /** @throws Fault unauthenticated, in the original's words */
  async authenticate(token: string, wait?: Wait): Promise<Actor> {
    if (token.startsWith(PREFIX)) {
      const record = await this.#store().tokens.findByHash(hashOf(token), wait);
      if (record === undefined) throw invalid();
      return { id: record.userId, role: record.role, botIds: record.botIds };
    }
    return await this.#fromJwt(token);
  }

  async #fromJwt(token: string): Promise<Actor> {
    if (this.#jwtSecret === undefined) throw invalid();
    const { jwtVerify } = await import("jose");
    const key = new TextEncoder().encode(this.#jwtSecret.reveal());
    let claims: Record<string, unknown>;
    try {
      ({ payload: claims } = await jwtVerify(token, key, { algorithms: ["HS256"] }));
    } catch (error) {
      throw invalid(error);
    }
    const id = claims["user_id"] ?? claims["sub"];
    if (typeof id !== "string" || id === "") throw new Fault("unauthenticated", "user id missing");
    if (!ID_CHARSET.test(id)) throw new Fault("invalid_argument", "invalid user id");
    return { id, role: "owner", botIds: [] };
  }
}

function invalid(cause?: unknown): Fault {
  return new Fault("unauthenticated", "invalid token", { hint: "Make one with: memoh token create", cause });
}

function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
