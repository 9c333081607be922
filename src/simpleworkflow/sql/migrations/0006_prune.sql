-- Ended runs leave, with their events, oldest first.

-- Partial, so that only the finish of a run pays for it (measured: nothing above the noise of a drain).
create index workflow_run_ended on {schema}.workflow_run (finished_at) where finished_at is not null;

-- Delete up to p_limit runs that ended before p_ended_before, with their events, in the caller's transaction; return
-- how many.  What has not ended stays, also a child whose parent has not; so does what somebody has locked: it
-- comes next time.  Waits for nobody.
--
-- It is called until fewer than p_limit come back.  reached_at, given back as p_from, spares the next call what
-- this one has walked over: deleted entries that a vacuum has yet to remove, and runs of other types.
create function {schema}.prune(
  p_ended_before timestamptz,
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_limit int default 1000,
  p_from timestamptz default '-infinity')
returns table (pruned bigint, reached_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan as $fn$
declare
  v_ids uuid[];
begin
  if p_ended_before is null then
    raise exception using errcode = 'WF002', message = 'p_ended_before: expected a time, got null';
  elsif exists (select from unnest(p_statuses) as status
                 where status is null or status not in ('succeeded', 'failed', 'cancelled')) then
    raise exception using errcode = 'WF002', message = 'p_statuses: expected succeeded, failed or cancelled',
      hint = 'a run that has not ended is never pruned; cancel it first';
  elsif (p_limit > 0) is not true then
    raise exception using errcode = 'WF002',
      message = format('p_limit: expected more than 0, got %s', coalesce(p_limit::text, 'null'));
  end if;
  with ended as (
    select run.id, run.finished_at
      from {schema}.workflow_run as run
     where run.finished_at >= coalesce(p_from, '-infinity')
       and run.finished_at < p_ended_before
       and (p_statuses is null or run.status = any (p_statuses))
       and (p_patterns is null or exists (
             select from unnest(p_patterns) as pattern
              where run.type = pattern or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1))))
       and not exists (
             select from {schema}.workflow_run as parent
              where parent.id = run.parent_id and parent.finished_at is null)
     order by run.finished_at
     limit p_limit
       for update of run skip locked)
  select coalesce(array_agg(ended.id), '{}'), max(ended.finished_at) into v_ids, reached_at from ended;
  -- Statements of their own, after the lock: what a run was changed by until then has left its events by now.
  perform set_config('workflow.transition', 'prune', true);
  delete from {schema}.workflow_event where workflow_id = any (v_ids);
  delete from {schema}.workflow_run as run where run.id = any (v_ids);
  get diagnostics pruned = row_count;
  perform set_config('workflow.transition', '', true);
  return next;
end
$fn$;

-- How many runs prune would delete now, if nobody held any of them: exactly.
--
-- With p_looks it counts a part: at most so many of those that ended first, from p_from on, and reached_at, unless it is
-- null, is the p_from of the next part.  Runs that ended at one moment are counted together, however many they are.
create function {schema}.count_prunable(
  p_ended_before timestamptz,
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_from timestamptz default '-infinity',
  p_looks int default null,
  out runs bigint, out reached_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan as $fn$
declare
  v_prefixes text[] := array(select left(pattern, -1) from unnest(p_patterns) as pattern where right(pattern, 1) = '%');
  v_looked_at bigint;
  v_first timestamptz;
  v_last timestamptz;
  v_before_last bigint;
begin
  if p_looks < 1 then
    raise exception using errcode = 'WF002', message = format('p_looks: expected 1 or more, got %s', p_looks);
  end if;
  with looked as materialized (
    select run.finished_at,
           (p_statuses is null or run.status = any (p_statuses))
           and (p_patterns is null or run.type = any (p_patterns) or run.type ^@ any (v_prefixes))
           and (run.parent_id is null or not exists (
                 select from {schema}.workflow_run as parent
                  where parent.id = run.parent_id and parent.finished_at is null)) as is_prunable
      from {schema}.workflow_run as run
     where run.finished_at >= coalesce(p_from, '-infinity') and run.finished_at < p_ended_before
     order by run.finished_at
     limit p_looks)
  select count(*), min(looked.finished_at), max(looked.finished_at), count(*) filter (where looked.is_prunable),
         count(*) filter (where looked.is_prunable
                                and looked.finished_at < (select max(last.finished_at) from looked as last))
    into v_looked_at, v_first, v_last, runs, v_before_last
    from looked;
  if v_looked_at < p_looks or p_looks is null then
    return;
  elsif v_first < v_last then
    -- There may be more that ended with the last: it begins the next part.
    runs := v_before_last;
    reached_at := v_last;
    return;
  end if;
  -- All of them ended at one moment.
  reached_at := (
    select run.finished_at
      from {schema}.workflow_run as run
     where run.finished_at > v_last and run.finished_at < p_ended_before
     order by run.finished_at
     limit 1);
  select counted.runs into runs
    from {schema}.count_prunable(coalesce(reached_at, p_ended_before), p_patterns, p_statuses, v_last) as counted;
end
$fn$;

revoke execute on function {schema}.prune, {schema}.count_prunable from public;
