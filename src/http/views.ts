// JSON shapes of what the API shows.
import type { BotView } from "../core/bot.ts";
import type { NewToken } from "../core/control.ts";
import type { ImageInfo } from "../core/runtime.ts";
import type { LifecycleEvent, TokenRecord } from "../core/store.ts";
import type { FileEntry } from "../core/workspace.ts";

export function botJson(bot: BotView) {
  const { workspace } = bot;
  const error = workspace?.lastError;
  return {
    id: bot.id,
    name: bot.name,
    owner_id: bot.ownerId,
    state: workspace?.phase ?? "absent",
    desired: workspace?.desired ?? "absent",
    ip: workspace?.bootId === undefined ? null : (workspace.ip ?? null),
    container_id: workspace?.containerId ?? null,
    image: workspace?.image ?? null,
    limits: workspace?.limits ?? {},
    disk_usage: bot.diskBytes ?? null,
    last_error:
      error === undefined
        ? null
        : {
            code: error.code,
            message: error.message,
            hint: error.hint ?? null,
            step: error.step,
            at: error.at.toISOString(),
            retryable: error.retryable,
          },
    attempts: workspace?.attempts ?? 0,
    next_attempt_at: workspace?.nextAttemptAt?.toISOString() ?? null,
    created_at: bot.createdAt.toISOString(),
    updated_at: (workspace?.updatedAt ?? bot.createdAt).toISOString(),
  };
}

/** The original's file shape; `path_b64` stands beside a path that is not UTF-8. */
export function fileJson(entry: FileEntry, path: Buffer) {
  const text = path.toString("utf8");
  const name = text.slice(text.lastIndexOf("/") + 1) || "/";
  return {
    name,
    path: text,
    ...(Buffer.from(text, "utf8").equals(path) ? {} : { path_b64: path.toString("base64") }),
    size: entry.size,
    mode: entry.mode,
    modTime: entry.modTime,
    isDir: entry.isDir,
    ...(entry.linkTarget === undefined ? {} : { linkTarget: entry.linkTarget.toString("utf8") }),
  };
}

export function imageJson(image: ImageInfo) {
  return {
    name: image.name,
    digest: image.digest,
    size: image.size,
    platform: image.platform,
    created_at: image.createdAt.toISOString(),
  };
}

export function tokenJson(token: TokenRecord | NewToken) {
  return {
    id: token.id,
    name: token.name,
    role: token.role,
    bots: token.botIds,
    created_at: token.createdAt.toISOString(),
    last_used_at: token.lastUsedAt?.toISOString() ?? null,
    ...("token" in token ? { token: token.token } : {}),
  };
}

export function eventJson(event: LifecycleEvent) {
  return {
    id: event.id,
    container_id: event.containerId,
    type: event.type,
    payload: event.payload,
    at: event.at.toISOString(),
  };
}
