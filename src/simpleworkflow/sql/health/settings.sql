-- What a setting may not be, why, and what it should be; null where it need only be reset.
with rule (name, severity, is_bad, why, wanted) as (
  select name, severity, bad, why, wanted
    from (values
      ('fsync', 'error', current_setting('fsync') = 'off',
       'after a crash of the machine the database may be corrupt, and runs lost', 'on'),
      ('full_page_writes', 'error', current_setting('full_page_writes') = 'off',
       'after a crash of the machine pages may be torn, and runs lost', 'on'),
      ('synchronous_commit', 'error', current_setting('synchronous_commit') = 'off',
       'a crash of the server loses runs that were acknowledged, and two workers may then share a fencing token', 'on'),
      ('session_replication_role', 'error', current_setting('session_replication_role') <> 'origin',
       'no trigger fires: nothing is checked, and changes leave no event', 'origin'),
      ('autovacuum', 'error', current_setting('autovacuum') = 'off',
       'each run leaves dead rows behind: claims grow slower and the tables larger without end', 'on'),
      ('track_counts', 'error', current_setting('track_counts') = 'off',
       'autovacuum does not learn which tables need it', 'on'),
      ('default_transaction_read_only', 'error', current_setting('default_transaction_read_only') = 'on',
       'nothing can be submitted, claimed or finished by this role', 'off'),
      ('default_transaction_isolation', 'notice',
       current_setting('default_transaction_isolation') not in ('read committed', 'read uncommitted'),
       'a producer may get serialization failures (40001) and has to try again; workers set their own', 'read committed'),
      ('statement_timeout', 'warning',
       (select setting::bigint from pg_settings where name = 'statement_timeout') between 1 and 4999,
       'a large batch or page may be ended in the middle; workers set their own', null),
      ('transaction_timeout', 'warning',
       (select setting::bigint from pg_settings where name = 'transaction_timeout') between 1 and 4999,
       'a large batch, or a worker''s, may be ended in the middle', null),
      ('lock_timeout', 'warning',
       (select setting::bigint from pg_settings where name = 'lock_timeout') between 1 and 999,
       'a cancel that waits a moment for a worker''s commit is refused; workers set their own', null),
      ('idle_in_transaction_session_timeout', 'warning',
       (select setting::bigint from pg_settings
         where name = 'idle_in_transaction_session_timeout') between 1 and 999,
       'a producer that submits in its own transaction loses it while it computes', null),
      ('idle_session_timeout', 'warning', current_setting('idle_session_timeout', true) <> '0',
       'ends the session on which a worker waits for wake-ups; until it is back, runs start by polling', null)
    ) as all_rules (name, severity, bad, why, wanted))
select rule.severity,
       format('%s = %s', rule.name, current_setting(rule.name)),
       rule.why,
       case
         when setting.source = 'client' then 'take it out of the options of the database URL, and out of PGOPTIONS'
         when setting.source in ('user', 'database', 'database user') then
           format('alter %s reset %s',
                  case setting.source when 'user' then format('role %I', current_user)
                                      when 'database' then format('database %I', current_database())
                                      else format('role %I in database %I', current_user, current_database()) end,
                  rule.name)
         when rule.wanted is null then format('alter role %I set %s = ''60s''', current_user, rule.name)
         else format('alter system set %s = %L; select pg_reload_conf()', rule.name, rule.wanted)
       end
  from rule
  join pg_settings as setting on setting.name = rule.name
 where rule.is_bad
