-- Events outlive the container's row: they name their bot themselves and hang on nothing.

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
