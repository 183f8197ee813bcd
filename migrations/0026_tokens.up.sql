-- Tokens of the HTTP API, by hash only, and what the host remembers about itself.

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
