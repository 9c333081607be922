-- Of other roles' sessions one who is not in pg_read_all_stats sees only how many transactions ago the snapshot is.
select 'warning',
       case when session.xact_start is null then
              format('session %s (%s, role %s) has a snapshot %s transactions old', session.pid,
                     coalesce(nullif(session.application_name, ''), 'unnamed'), session.usename,
                     age(session.backend_xmin))
            else
              format('session %s (%s, role %s%s) has been in one transaction for %s: %s', session.pid,
                     coalesce(nullif(session.application_name, ''), session.backend_type), session.usename,
                     coalesce(', from ' || host(session.client_addr), ''),
                     date_trunc('second', clock_timestamp() - session.xact_start),
                     left(regexp_replace(session.query, '[[:cntrl:][:space:]]+', ' ', 'g'), 60))
       end,
       'what it might still see cannot be vacuumed: every claim scans more dead entries, ever slower',
       format('select pg_terminate_backend(%s)', session.pid)
  from pg_stat_activity as session
 where session.datname = current_database()
   and session.pid <> pg_backend_pid()
   and coalesce(session.state, 'active') not like 'idle in transaction%'
   and session.backend_xmin is not null
   and coalesce(session.backend_type, 'client backend') <> 'autovacuum worker'
   and case when session.xact_start is null then age(session.backend_xmin) > 100000
            else session.xact_start < clock_timestamp() - make_interval(secs => {long_seconds}) end
 order by session.xact_start
 limit 20
