-- What was asked for, recorded before anything happens, and the journal of steps that are done.

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
