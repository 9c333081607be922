-- For one check, whatever the role's own settings are; gone with its transaction, also behind a pooler.  Without
-- statistics the planner would read the whole table where an index holds the few that are asked for.
set local statement_timeout = '{seconds}s';
set local lock_timeout = '1s';
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local jit = off
