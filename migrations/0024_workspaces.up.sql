-- What is wanted of a bot's container (desired) apart from what is (observed).

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
