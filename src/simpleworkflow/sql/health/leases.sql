select 'warning',
       format('%s leases of worker %s have lapsed, the first %s ago, and nobody has expired them', count(*),
              left(run.leased_by, 100), date_trunc('second', clock_timestamp() - min(run.lease_until))),
       'these runs stand still; any live worker expires them within seconds',
       'start a worker, or: select * from {schema}.expire()'
  from {schema}.workflow_run as run
 where run.status = 'leased'
   and run.lease_until < clock_timestamp() - make_interval(secs => least({long_seconds}, 10))
 group by run.leased_by
 order by min(run.lease_until)
 limit 20
