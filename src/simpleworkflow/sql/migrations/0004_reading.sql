-- What clients read, with the caller's own rights.

create function {schema}.get_runs(p_ids uuid[]) returns setof {schema}.workflow_run
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select * from {schema}.workflow_run as run where run.id = any (p_ids)
$fn$;

-- Runs of any of the patterns and statuses, newest first, those before p_before on the page before: pages go by
-- the id, which is ordered by time where the database makes it.
create function {schema}.list_runs(
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_before uuid default null,
  p_limit int default 50)
returns setof {schema}.workflow_run
language plpgsql stable set search_path = pg_catalog, pg_temp
-- A plan for the values at hand: one for all of them could not use the partial indexes.
set plan_cache_mode = force_custom_plan as $fn$
begin
  return query
  select *
    from {schema}.workflow_run as run
   where run.deleted_at is null
     and (p_patterns is null or exists (
           select from unnest(p_patterns) as pattern
            where run.type = pattern or pattern like '%\%' and starts_with(run.type, left(pattern, -1))))
     and (p_statuses is null or run.status = any (p_statuses))
     and (p_created_from is null or run.created_at >= p_created_from)
     and (p_created_before is null or run.created_at < p_created_before)
     and (p_before is null or run.id < p_before)
   order by run.id desc
   limit p_limit;
end
$fn$;

create function {schema}.list_events(p_run_id uuid, p_after bigint default 0, p_limit int default 10000)
returns setof {schema}.workflow_event
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select *
    from {schema}.workflow_event as event
   where event.workflow_id = p_run_id and event.id > p_after
   order by event.id
   limit p_limit
$fn$;

-- Which of these runs have ended.  What everybody who waits in one process asks in one statement.
create function {schema}.ended_runs(p_ids uuid[]) returns table (id uuid, status text)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select run.id, run.status
    from {schema}.workflow_run as run
   where run.id = any (p_ids) and run.status in ('succeeded', 'failed', 'cancelled')
$fn$;
