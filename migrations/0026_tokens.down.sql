drop table settings;
drop table token_bots;
drop table tokens;
