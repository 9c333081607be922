-- Counts that are wrong, as far as that can be seen without reading the table: where there are few of a status, the indexes
-- tell; where there are many, wf verify does.  And whether anybody folds.
with counted as materialized (
  select counts.type, counts.status, counts.runs from {schema}.counts() where not {schema}.is_behind(50000)),
present as (
  select listed.status, count(*) as runs
    from unnest('{pending,leased,waiting,failed,cancelled}'::text[]) as named (status)
   cross join lateral (
     (select run.status from {schema}.workflow_run as run
       where named.status = 'pending' and run.status = 'pending' and run.deleted_at is null and not run.is_suspect
       order by run.type, run.priority, run.run_at
       limit 1001)
     union all
     (select run.status from {schema}.workflow_run as run
       where named.status = 'pending' and run.status = 'pending' and run.deleted_at is null and run.is_suspect
       limit 1001)
     union all
     (select run.status from {schema}.workflow_run as run
       where named.status = 'leased' and run.status = 'leased' and run.deleted_at is null
       limit 1001)
     union all
     (select run.status from {schema}.workflow_run as run
       where run.status = named.status and run.status in ('waiting', 'failed', 'cancelled') and run.deleted_at is null
       limit 1001)) as listed
   group by listed.status)
select 'warning', format('type %s: %s %s runs are counted', counted.type, counted.runs, counted.status),
       'somebody has changed runs with the triggers switched off: pages show what is not there',
       'select {schema}.recount()'
  from counted
 where counted.runs < 0
union all
select 'warning',
       format('%s %s runs are counted, there are %s', summed.runs, summed.status,
              case when summed.present > 1000 then 'more than 1000' else summed.present::text end),
       'somebody has changed runs with the triggers switched off: pages show what is not there',
       'select {schema}.recount()'
  from (select named.status, coalesce(present.runs, 0) as present,
               coalesce((select sum(counted.runs) from counted where counted.status = named.status), 0) as runs
          from unnest('{pending,leased,waiting,failed,cancelled}'::text[]) as named (status)
          left join present on present.status = named.status) as summed
 where not {schema}.is_behind(50000)
   and least(summed.runs, 1001) <> least(summed.present, 1001)
union all
select 'warning', 'more than 50000 changes of counts are not summed up, the last time was '
                  || case when fold.folded_at > '-infinity'
                          then date_trunc('second', clock_timestamp() - fold.folded_at)::text || ' ago' else 'never' end,
       'whoever asks how many runs there are has to sum them up first',
       'start a worker, or: select {schema}.fold() until it returns 0'
  from {schema}.workflow_fold as fold
 where {schema}.is_behind(50000)
