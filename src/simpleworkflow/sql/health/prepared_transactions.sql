select 'warning',
       format('the prepared transaction %L of role %s is %s old', prepared.gid, prepared.owner,
              date_trunc('second', clock_timestamp() - prepared.prepared)),
       'it survives restarts, keeps its locks, and nothing that it might see can be vacuumed',
       format('rollback prepared %L', prepared.gid)
  from pg_prepared_xacts as prepared
 where prepared.database = current_database()
   and prepared.prepared < clock_timestamp() - make_interval(secs => {long_seconds})
 order by prepared.prepared
 limit 20
