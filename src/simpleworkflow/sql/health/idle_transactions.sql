select 'warning',
       format('session %s (%s, role %s%s) has been idle in a transaction for %s%s', session.pid,
              coalesce(nullif(session.application_name, ''), 'unnamed'), session.usename,
              coalesce(', from ' || host(session.client_addr), ''),
              date_trunc('second', clock_timestamp() - session.state_change),
              case when session.backend_xid is not null or session.backend_xmin is not null
                   then '; it holds back vacuum' else '' end),
       'its locks make others wait, and dead rows that it might still see make every claim slower',
       format('select pg_terminate_backend(%s)', session.pid)
  from pg_stat_activity as session
 where session.datname = current_database()
   and session.pid <> pg_backend_pid()
   and session.state in ('idle in transaction', 'idle in transaction (aborted)')
   and session.state_change < clock_timestamp() - make_interval(secs => {long_seconds})
 order by session.state_change
 limit 20
