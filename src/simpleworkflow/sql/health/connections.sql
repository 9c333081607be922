-- Anybody sees how many sessions there are; walsenders have places of their own.
with used as (
  select count(*) as sessions,
         count(*) filter (where session.application_name = 'simpleworkflow') as ours,
         current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as places
    from pg_stat_activity as session
   where session.datid is not null),
role as (
  select role.rolconnlimit as places,
         (select count(*) from pg_stat_activity as session where session.usename = current_user) as sessions
    from pg_roles as role
   where role.rolname = current_user and role.rolconnlimit >= 0)
select case when used.sessions >= 0.95 * used.places then 'error' when used.sessions >= 0.8 * used.places then 'warning'
            else 'ok' end,
       format('%s of %s connections are used, %s of them by simpleworkflow', used.sessions, used.places, used.ours),
       'when none is left, producers and workers that start or reconnect are refused',
       'raise max_connections, use fewer processes, or put PgBouncer in between (SIMPLEWORKFLOW_POOLER=transaction)'
  from used
union all
select case when role.sessions >= role.places then 'error' else 'warning' end,
       format('%s of the %s connections of role %s are used', role.sessions, role.places, current_user),
       'when none is left, producers and workers of this role are refused',
       format('alter role %I connection limit %s', current_user, 2 * greatest(role.places, 10))
  from role
 where role.sessions >= 0.8 * role.places
