-- Who makes others wait for a table or a row of ours, and for how long.
with waiting as (
  select lock.pid, lock.waitstart, blocker, coalesce(class.relname, 'a row') as what
    from pg_locks as lock
   cross join unnest(pg_blocking_pids(lock.pid)) as blocker
    left join pg_class as class on class.oid = lock.relation
   where not lock.granted
     and lock.waitstart < clock_timestamp() - make_interval(secs => least({long_seconds}, 5))
     -- Who waits for a row waits for the end of a transaction; what it holds on our tables tells that it is ours.
     and exists (select from pg_locks as on_table
                   join pg_class as ours on ours.oid = on_table.relation
                   join pg_namespace as namespace on namespace.oid = ours.relnamespace
                  where on_table.pid = lock.pid and namespace.nspname = '{schema}'))
select 'warning',
       format('session %s (%s, role %s) makes %s wait for %s, the longest for %s', waiting.blocker,
              coalesce(nullif(session.application_name, ''), 'unnamed'), session.usename,
              string_agg(distinct waiting.pid::text, ', '), min(waiting.what),
              date_trunc('second', clock_timestamp() - min(waiting.waitstart))),
       'producers and workers stand still behind it',
       format('select pg_terminate_backend(%s)', waiting.blocker)
  from waiting
  left join pg_stat_activity as session on session.pid = waiting.blocker
 -- Not those who wait themselves: they go when the first of the queue goes.
 where not exists (select from waiting as other where other.pid = waiting.blocker)
 group by waiting.blocker, session.application_name, session.usename
 order by min(waiting.waitstart)
 limit 20
