-- For one check, whatever the role's own settings are; gone with its transaction, also behind a pooler.
set local statement_timeout = '{seconds}s';
set local lock_timeout = '1s'
