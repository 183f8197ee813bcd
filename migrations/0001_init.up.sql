-- The original's tables that touch containers, with its names and columns, so that its databases can be adopted.

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
