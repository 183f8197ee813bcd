drop table intent_steps;
drop table intents;
