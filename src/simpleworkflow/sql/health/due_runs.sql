-- Due runs that nobody claims, by type: one index probe for each lane (type, priority), 1,000 of them at most, and the
-- suspects that have waited longest.  Both conditions as the indexes have them: else the whole table is read.
with recursive lane as (
  (select run.type, run.priority, run.run_at
     from {schema}.workflow_run as run
    where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
    order by run.type, run.priority, run.run_at
    limit 1)
  union all
  select following.type, following.priority, following.run_at
    from lane
   cross join lateral (
     select run.type, run.priority, run.run_at
       from {schema}.workflow_run as run
      where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
        and (run.type, run.priority) > (lane.type, lane.priority)
      order by run.type, run.priority, run.run_at
      limit 1) as following),
late as (
  select due.type, min(due.run_at) as oldest_at
    from ((select lane.type, lane.run_at from lane limit 1000)
          union all
          (select run.type, run.run_at
             from {schema}.workflow_run as run
            where run.status = 'pending' and run.deleted_at is null and run.is_suspect
            order by run.run_at
            limit 1000)) as due
   where due.run_at < clock_timestamp() - make_interval(secs => {long_seconds})
   group by due.type),
judged as (
  select late.type, late.oldest_at,
         (select min(known.workflow_name) from {schema}.workflow_registry as known
           where not known.is_enabled
             and (known.workflow_name = late.type or right(known.workflow_name, 1) = '%'
                  and starts_with(late.type, left(known.workflow_name, -1)))) as disabled,
         (select min(known.workflow_name) from {schema}.workflow_registry as known
           where known.workflow_name = late.type or right(known.workflow_name, 1) = '%'
                 and starts_with(late.type, left(known.workflow_name, -1))) as known,
         (select count(*) from {schema}.workflow_run as run
           where run.status = 'leased' and run.leased_by is not null and run.type = late.type
             and run.lease_until > clock_timestamp()) as leased
    from late)
select case when judged.disabled is not null then 'notice' else 'warning' end,
       format('type %s: the oldest run has been due for %s; %s', judged.type,
              date_trunc('second', clock_timestamp() - judged.oldest_at),
              case when judged.disabled is not null then format('%s is disabled in the registry', judged.disabled)
                   when judged.known is null then 'no worker has ever handled this type'
                   when judged.leased = 0 then format('no worker for %s claims it', judged.known)
                   else format('workers hold %s runs of it', judged.leased) end),
       case when judged.disabled is not null then 'its runs wait until it is enabled again'
            when judged.leased > 0 then 'there are fewer workers than there is work'
            else 'its runs wait until a worker handles the type' end,
       case when judged.disabled is not null then
              format('update {schema}.workflow_registry set is_enabled = true where workflow_name = %L', judged.disabled)
            when judged.known is null then format('start a worker with a handler for %s, or correct the type', judged.type)
            when judged.leased = 0 then 'start a worker: wf worker MODULE:WORKER'
            else 'raise --processes or --concurrency of wf worker, or start workers on more hosts' end
  from judged
 order by judged.oldest_at
 limit 20
