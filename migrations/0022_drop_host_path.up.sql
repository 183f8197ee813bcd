-- A bot's data lives in its container and nowhere else: there is no directory of the host to remember.
alter table containers drop column if exists host_path;
