-- The column comes back empty; what it held is not restored.
alter table containers add column if not exists host_path text;
