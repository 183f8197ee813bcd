// Generated from migrations/*.sql by build/gen-migrations.ts. Do not edit.

/** One step of the schema: how to go there and back. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly up: string;
  readonly down: string;
}

/** Every migration this program knows, oldest first. */
export const MIGRATIONS: readonly Migration[] = [
  {
    version: 1,
    name: "init",
    up: `-- The original's tables that touch containers, with its names and columns, so that its databases can be adopted.

create table users (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  role text not null default 'owner' check (role in ('admin', 'owner', 'guest')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table bots (
  id uuid primary key default gen_random_uuid(),
  owner_user_id uuid not null references users (id) on delete cascade,
  type text not null default 'personal' check (type in ('personal', 'public')),
  display_name text,
  status text not null default 'ready' check (status in ('creating', 'ready', 'deleting')),
  allow_guest boolean not null default false,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index idx_bots_owner_user_id on bots (owner_user_id);

create table containers (
  id uuid primary key default gen_random_uuid(),
  bot_id uuid not null references bots (id) on delete cascade,
  container_id text not null constraint containers_container_id_unique unique,
  container_name text not null constraint containers_container_name_unique unique,
  image text not null,
  status text not null default 'created',
  namespace text not null default 'default',
  auto_start boolean not null default true,
  host_path text,
  container_path text not null default '/data',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  last_started_at timestamptz,
  last_stopped_at timestamptz
);
create index idx_containers_bot_id on containers (bot_id);

create table snapshots (
  id uuid primary key default gen_random_uuid(),
  container_id text not null references containers (container_id) on delete cascade,
  runtime_snapshot_name text not null,
  parent_runtime_snapshot_name text,
  snapshotter text not null,
  source text not null,
  created_at timestamptz not null default now(),
  unique (container_id, runtime_snapshot_name)
);
create index idx_snapshots_container_created on snapshots (container_id, created_at desc);
create index idx_snapshots_runtime_name on snapshots (runtime_snapshot_name);

create table container_versions (
  id uuid primary key default gen_random_uuid(),
  container_id text not null references containers (container_id) on delete cascade,
  snapshot_id uuid not null references snapshots (id) on delete restrict,
  version integer not null,
  created_at timestamptz not null default now(),
  unique (container_id, version)
);
create index idx_container_versions_container_id on container_versions (container_id);
create index idx_container_versions_snapshot_id on container_versions (snapshot_id);

create table lifecycle_events (
  id text primary key,
  container_id text not null references containers (container_id) on delete cascade,
  event_type text not null,
  payload jsonb not null default '{}',
  created_at timestamptz not null default now()
);
create index idx_lifecycle_events_container_id on lifecycle_events (container_id);
create index idx_lifecycle_events_event_type on lifecycle_events (event_type);
`,
    down: `drop table lifecycle_events;
drop table container_versions;
drop table snapshots;
drop table containers;
drop table bots;
drop table users;
`,
  },
  {
    version: 22,
    name: "drop_host_path",
    up: `-- A bot's data lives in its container and nowhere else: there is no directory of the host to remember.
alter table containers drop column if exists host_path;
`,
    down: `-- The column comes back empty; what it held is not restored.
alter table containers add column if not exists host_path text;
`,
  },
  {
    version: 23,
    name: "names",
    up: `-- Bots get unique names usable as host names; users may be known by an id of another system (a JWT's subject, \`admin\`).

alter table users add column external_id text constraint users_external_id_unique unique;

alter table bots add column name text;
with slugs as (
  select id, trim(both '-' from left(regexp_replace(lower(coalesce(display_name, '')), '[^a-z0-9-]+', '-', 'g'), 63)) as slug
  from bots
), counted as (
  select id, slug, count(*) over (partition by slug) as same from slugs
)
update bots set name = case
    when counted.slug <> '' and counted.same = 1 then counted.slug
    else trim(both '-' from left(counted.slug, 30) || '-' || replace(bots.id::text, '-', ''))
  end
from counted where counted.id = bots.id;
alter table bots alter column name set not null;
alter table bots add constraint bots_name_unique unique (name);
`,
    down: `update bots set display_name = coalesce(display_name, name);
alter table bots drop column name;
alter table users drop column external_id;
`,
  },
  {
    version: 24,
    name: "workspaces",
    up: `-- What is wanted of a bot's container (desired) apart from what is (observed).

create table workspaces (
  bot_id uuid primary key references bots (id) on delete cascade,
  container_id text not null constraint workspaces_container_id_unique unique,

  desired text not null check (desired in ('running', 'stopped', 'absent')),
  -- Counts changes of the desired half.
  generation integer not null default 1,
  image text not null,
  -- {memory?: bytes, pids?, cpus?}; what is absent has the configured default.
  limits jsonb not null default '{}',

  phase text not null default 'pending' check (phase in (
    'pending', 'creating', 'starting', 'running', 'stopping', 'stopped', 'deleting', 'failed', 'absent')),
  snapshot_key text,
  ip text,
  netns_path text,
  boot_id text,
  -- Once true, the data is never made from the image again.
  ready_once boolean not null default false,
  -- {code, message, hint?, step, at, retryable}
  last_error jsonb,
  attempts integer not null default 0,
  next_attempt_at timestamptz,

  -- Which host works on this bot; the fence counts owners, so that a late write of an earlier one is refused.
  lease_owner text,
  lease_expires_at timestamptz,
  lease_fence bigint not null default 0,

  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index idx_workspaces_next_attempt_at on workspaces (next_attempt_at) where next_attempt_at is not null;
`,
    down: `drop table workspaces;
`,
  },
  {
    version: 25,
    name: "intents",
    up: `-- What was asked for, recorded before anything happens, and the journal of steps that are done.

create table intents (
  id uuid primary key default gen_random_uuid(),
  -- Order of recording; clocks of two hosts may disagree.
  seq bigint generated always as identity,
  -- No foreign key: the intent that deletes a bot has to be finished after the bot's row is gone.
  bot_id uuid not null,
  kind text not null,
  state text not null default 'pending' check (state in ('pending', 'running', 'done', 'failed')),
  requested_by text not null,
  idempotency_key text,
  error jsonb,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  constraint intents_idempotency_key_unique unique (bot_id, idempotency_key)
);
create index idx_intents_bot_id on intents (bot_id, seq desc);
create index idx_intents_open on intents (seq) where state in ('pending', 'running');

create table intent_steps (
  intent_id uuid not null references intents (id) on delete cascade,
  step text not null,
  seq bigint generated always as identity,
  done_at timestamptz not null default now(),
  primary key (intent_id, step)
);
`,
    down: `drop table intent_steps;
drop table intents;
`,
  },
  {
    version: 26,
    name: "tokens",
    up: `-- Tokens of the HTTP API, by hash only, and what the host remembers about itself.

create table tokens (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  role text not null check (role in ('admin', 'owner', 'guest')),
  user_id uuid not null references users (id) on delete cascade,
  -- SHA-256 of the token; the token itself is known to its holder alone.
  hash bytea not null constraint tokens_hash_unique unique check (octet_length(hash) = 32),
  created_at timestamptz not null default now(),
  last_used_at timestamptz
);

-- Bots that a token of role owner or guest names.
create table token_bots (
  token_id uuid not null references tokens (id) on delete cascade,
  bot_id uuid not null references bots (id) on delete cascade,
  primary key (token_id, bot_id)
);
create index idx_token_bots_bot_id on token_bots (bot_id);

create table settings (
  key text primary key,
  value text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
`,
    down: `drop table settings;
drop table token_bots;
drop table tokens;
`,
  },
  {
    version: 27,
    name: "lasting_events",
    up: `-- Events outlive the container's row: they name their bot themselves and hang on nothing.

alter table lifecycle_events drop constraint if exists lifecycle_events_container_id_fkey;
alter table lifecycle_events add column bot_id uuid;
alter table lifecycle_events add column seq bigint generated always as identity;

-- The bot of an event is that of its container's row; where that is gone, the bot noted by the down of this file, or
-- the one in the container's name.
update lifecycle_events set
  bot_id = coalesce(
    (select bot_id from containers where containers.container_id = lifecycle_events.container_id),
    (payload ->> 'memoh_bot_id')::uuid,
    substring(container_id from '([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
  ),
  payload = payload - 'memoh_bot_id';
create index idx_lifecycle_events_bot_id on lifecycle_events (bot_id, seq desc);
`,
    down: `-- Events whose container is gone stay: the key counts for new rows only, and the bot is noted in the payload.
update lifecycle_events set payload = payload || jsonb_build_object('memoh_bot_id', bot_id) where bot_id is not null;
alter table lifecycle_events drop column seq;
alter table lifecycle_events drop column bot_id;
alter table lifecycle_events add constraint lifecycle_events_container_id_fkey
  foreign key (container_id) references containers (container_id) on delete cascade not valid;
`,
  },
];
