-- Events whose container is gone stay: the key counts for new rows only, and the bot is noted in the payload.
update lifecycle_events set payload = payload || jsonb_build_object('memoh_bot_id', bot_id) where bot_id is not null;
alter table lifecycle_events drop column seq;
alter table lifecycle_events drop column bot_id;
alter table lifecycle_events add constraint lifecycle_events_container_id_fkey
  foreign key (container_id) references containers (container_id) on delete cascade not valid;
