-- Bots get unique names usable as host names; users may be known by an id of another system (a JWT's subject, `admin`).

alter table users add column external_id text constraint users_external_id_unique unique;

alter table bots add column name text;
with slugs as (
  select id, trim(both '-' from left(regexp_replace(lower(coalesce(display_name, '')), '[^a-z0-9-]+', '-', 'g'), 63)) as slug
  from bots
), counted as (
  select id, slug, count(*) over (partition by slug) as same from slugs
)
update bots set name = case
    when counted.slug <> '' and counted.same = 1 then counted.slug
    else trim(both '-' from left(counted.slug, 30) || '-' || replace(bots.id::text, '-', ''))
  end
from counted where counted.id = bots.id;
alter table bots alter column name set not null;
alter table bots add constraint bots_name_unique unique (name);
