drop table lifecycle_events;
drop table container_versions;
drop table snapshots;
drop table containers;
drop table bots;
drop table users;
