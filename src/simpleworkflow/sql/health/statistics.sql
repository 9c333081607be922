select 'notice',
       format('role %s cannot see what %s sessions of other roles do', current_user, count(*)),
       'the checks of sessions below see of them only how far back their snapshots reach',
       format('grant pg_read_all_stats to %I', current_user)
  from pg_stat_activity as session
 where session.datname = current_database()
   and session.backend_type is null   -- hidden from this role
having count(*) > 0
