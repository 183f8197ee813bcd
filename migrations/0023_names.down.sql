update bots set display_name = coalesce(display_name, name);
alter table bots drop column name;
alter table users drop column external_id;
