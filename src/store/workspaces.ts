// Workspaces in Postgres: desired and observed halves, and the original's containers row kept in step.

import type { DesiredState, ObservedPatch, Phase, WorkspaceRecord } from "../core/bot.ts";
import { isBotId } from "../core/bot-id.ts";
import type { Limits } from "../core/runtime.ts";
import type { WorkspaceStore } from "../core/store.ts";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import { cleanText } from "./clean-json.ts";
import type { Sql, Statement } from "./connection.ts";
import type { Call, Database } from "./database.ts";
import { lastErrorOf, type StoredError, storedError } from "./last-error.ts";

interface WorkspaceRow {
  readonly botId: string;
  readonly desired: DesiredState;
  readonly generation: number;
  readonly image: string;
  readonly limits: Limits;
  readonly phase: Phase;
  readonly containerId: string;
  readonly snapshotKey: string | null;
  readonly ip: string | null;
  readonly netnsPath: string | null;
  readonly bootId: string | null;
  readonly readyOnce: boolean;
  readonly lastError: StoredError | null;
  readonly attempts: number;
  readonly nextAttemptAt: Date | null;
  readonly updatedAt: Date;
}

const columns = (sql: Sql) => sql`
  workspaces.bot_id, desired, generation, workspaces.image, limits, phase, workspaces.container_id, snapshot_key, ip,
  netns_path, boot_id, ready_once, last_error, attempts, next_attempt_at, workspaces.updated_at`;

export class PgWorkspaces implements WorkspaceStore {
  readonly #database: Database;
  readonly #namespace: string;

  /** @param namespace containerd namespace of new containers rows */
  constructor(database: Database, namespace: string) {
    this.#database = database;
    this.#namespace = namespace;
  }

  async create(
    workspace: { botId: string; containerId: string; image: string; limits: Limits; desired: DesiredState },
    wait: Wait = {},
  ): Promise<WorkspaceRecord> {
    const { botId, containerId, image, limits, desired } = workspace;
    const call: Call = {
      doing: `record the workspace of bot ${botId}`,
      conflicts: {
        workspaces_container_id_unique: `the container ${containerId} belongs to another bot`,
        containers_container_name_unique: `the container ${containerId} belongs to another bot`,
        containers_bot_id_fkey: "there is no such bot",
      },
      signal: wait.signal,
    };
    // A containers row that exists (the original's, or of an earlier try) is left as it is, unless it is another bot's.
    const [row] = await this.#database.query(
      call,
      (sql) => sql<WorkspaceRow[]>`
        with container as (
          insert into containers (bot_id, container_id, container_name, image, namespace, auto_start)
          select ${botId}, ${containerId}, ${containerId}, ${image}, ${this.#namespace}, ${desired === "running"}
          where not exists (select 1 from workspaces where bot_id = ${botId})
          on conflict (container_id) do update set container_id = excluded.container_id
            where containers.bot_id = excluded.bot_id
          returning bot_id
        )
        insert into workspaces (bot_id, container_id, desired, image, limits)
        select bot_id, ${containerId}, ${desired}, ${image}, ${sql.json({ ...limits })} from container
        on conflict (bot_id) do nothing
        returning ${columns(sql)}`,
    );
    const record = row === undefined ? await this.get(botId, wait) : recordOf(row);
    if (record === undefined) {
      throw new Fault(
        "already_exists",
        `Cannot ${call.doing}: the container ${containerId} belongs to another bot`,
      );
    }
    return record;
  }

  async get(botId: string, wait: Wait = {}): Promise<WorkspaceRecord | undefined> {
    if (!isBotId(botId)) return undefined;
    const [row] = await this.#database.query(
      { doing: "read a workspace", signal: wait.signal },
      (sql) => sql<WorkspaceRow[]>`select ${columns(sql)} from workspaces where bot_id = ${botId}`,
    );
    return row === undefined ? undefined : recordOf(row);
  }

  async getByContainer(containerId: string, wait: Wait = {}): Promise<WorkspaceRecord | undefined> {
    const [row] = await this.#database.query(
      { doing: "read a workspace", signal: wait.signal },
      (sql) =>
        sql<WorkspaceRow[]>`select ${columns(sql)} from workspaces where container_id = ${containerId}`,
    );
    return row === undefined ? undefined : recordOf(row);
  }

  async list(wait: Wait = {}): Promise<WorkspaceRecord[]> {
    const rows = await this.#database.query(
      { doing: "list workspaces", signal: wait.signal },
      (sql) => sql<WorkspaceRow[]>`select ${columns(sql)} from workspaces order by created_at, bot_id`,
    );
    return rows.map(recordOf);
  }

  async desire(botId: string, desired: DesiredState, wait: Wait = {}): Promise<WorkspaceRecord> {
    return await this.#change(
      botId,
      `record that bot ${botId} is to be ${desired}`,
      wait,
      (sql) => sql<WorkspaceRow[]>`
        with container as (
          update containers set auto_start = ${desired === "running"}, updated_at = now() where bot_id = ${botId}
        )
        update workspaces set desired = ${desired}, generation = generation + 1, updated_at = now()
        where bot_id = ${botId} returning ${columns(sql)}`,
    );
  }

  async setLimits(botId: string, limits: Limits, wait: Wait = {}): Promise<WorkspaceRecord> {
    return await this.#change(
      botId,
      `record the limits of bot ${botId}`,
      wait,
      (sql) => sql<WorkspaceRow[]>`
        update workspaces set limits = ${sql.json({ ...limits })}, generation = generation + 1, updated_at = now()
        where bot_id = ${botId} returning ${columns(sql)}`,
    );
  }

  async observe(botId: string, patch: ObservedPatch, wait: Wait = {}): Promise<WorkspaceRecord> {
    return await this.#change(botId, `record the state of bot ${botId}`, wait, (sql) => {
      const changes = changesOf(sql, patch);
      const update =
        Object.keys(changes).length === 0
          ? sql`update workspaces set updated_at = now()`
          : sql`update workspaces set updated_at = now(), ${sql(changes)}`;
      const status = patch.phase === undefined ? undefined : STATUS[patch.phase];
      if (patch.phase === undefined || status === undefined) {
        return sql<WorkspaceRow[]>`
          ${update} where bot_id = ${botId} returning ${columns(sql)}`;
      }
      // Times move when the phase is entered, not each time it is seen again.
      return sql<WorkspaceRow[]>`
        with before as (select phase from workspaces where bot_id = ${botId}), container as (
          update containers set
            status = ${status},
            last_started_at = case when ${status} = 'running' and before.phase <> ${patch.phase}
              then now() else last_started_at end,
            last_stopped_at = case when ${status} = 'stopped' and before.phase <> ${patch.phase}
              then now() else last_stopped_at end,
            updated_at = now()
          from before where containers.bot_id = ${botId}
        )
        ${update} where bot_id = ${botId} returning ${columns(sql)}`;
    });
  }

  async delete(botId: string, wait: Wait = {}): Promise<void> {
    if (!isBotId(botId)) return;
    await this.#database.query(
      { doing: `forget the workspace of bot ${botId}`, signal: wait.signal },
      (sql) => sql`
        with container as (delete from containers where bot_id = ${botId})
        delete from workspaces where bot_id = ${botId}`,
    );
  }

  async #change(
    botId: string,
    doing: string,
    wait: Wait,
    build: (sql: Sql) => Statement<WorkspaceRow[]>,
  ): Promise<WorkspaceRecord> {
    const [row] = isBotId(botId) ? await this.#database.query({ doing, signal: wait.signal }, build) : [];
    if (row === undefined) throw new Fault("not_found", `Cannot ${doing}: it has no workspace`);
    return recordOf(row);
  }
}

/** What the original calls a phase; in phases it has no word for, its row stays as it was. */
const STATUS: Readonly<Partial<Record<Phase, string>>> = {
  pending: "created",
  creating: "created",
  running: "running",
  stopped: "stopped",
  absent: "stopped",
  failed: "error",
};

function changesOf(sql: Sql, patch: ObservedPatch) {
  const { phase, snapshotKey, ip, netnsPath, bootId, readyOnce, lastError, attempts, nextAttemptAt } = patch;
  return {
    ...(phase === undefined ? {} : { phase }),
    ...(snapshotKey === undefined ? {} : { snapshot_key: snapshotKey }),
    ...(ip === undefined ? {} : { ip: ip === null ? null : cleanText(ip) }),
    ...(netnsPath === undefined ? {} : { netns_path: netnsPath }),
    ...(bootId === undefined ? {} : { boot_id: bootId }),
    ...(readyOnce === undefined ? {} : { ready_once: readyOnce }),
    ...(lastError === undefined
      ? {}
      : { last_error: lastError === null ? null : sql.json({ ...storedError(lastError) }) }),
    ...(attempts === undefined ? {} : { attempts }),
    ...(nextAttemptAt === undefined ? {} : { next_attempt_at: nextAttemptAt }),
  };
}

function recordOf(row: WorkspaceRow): WorkspaceRecord {
  return {
    ...row,
    snapshotKey: row.snapshotKey ?? undefined,
    ip: row.ip ?? undefined,
    netnsPath: row.netnsPath ?? undefined,
    bootId: row.bootId ?? undefined,
    lastError: lastErrorOf(row.lastError),
    nextAttemptAt: row.nextAttemptAt ?? undefined,
  };
}
