-- What clients read, with the caller's own rights.

-- The columns of a table, as a select list.  What runs are about (payload, result, error, the data of an event) comes
-- as null to whom it was not granted, so that a reader lists runs without it.
create function {schema}.readable_columns(p_table regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select string_agg(case when attname in ('payload', 'result', 'last_error', 'data')
                              and not has_column_privilege(attrelid, attnum, 'select')
                         then 'null::' || format_type(atttypid, atttypmod)
                         else quote_ident(attname) end, ', ' order by attnum)
    from pg_attribute
   where attrelid = p_table and attnum > 0 and not attisdropped
$fn$;

create function {schema}.get_runs(p_ids uuid[]) returns setof {schema}.workflow_run
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $fn$
begin
  return query execute format('select %s from {schema}.workflow_run where id = any ($1)',
                              {schema}.readable_columns('{schema}.workflow_run'))
    using p_ids;
end
$fn$;

-- The least id that the database makes at that time; null where there is none.
create function {schema}.first_id_at(p_at timestamptz) returns uuid language sql stable
set search_path = pg_catalog, pg_temp as $fn$
  select case when p_at >= 'epoch' and p_at < '9999-01-01 00:00+00'
              then (lpad(to_hex(trunc(extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
         end
$fn$;

-- The ids of pending and leased runs, if they are few: from the indexes that claims use, which are in another order
-- than that of the ids.  Null: there are more than p_at_most of the patterns.
create function {schema}.few_ids(p_patterns text[], p_statuses text[], p_at_most int) returns uuid[]
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set plan_cache_mode = force_generic_plan as $fn$
declare
  v_ids uuid[] := '{}';
begin
  if 'pending' = any (p_statuses) then
    -- Every character of a type sorts above '!' and below '~'.
    v_ids := array(
      select run.id
        from (select case when right(pattern, 1) = '%' then left(pattern, -1) else pattern end collate "C" as low,
                     case when right(pattern, 1) = '%' then left(pattern, -1) || '~'
                          else pattern || '!' end collate "C" as high
                from unnest(coalesce(p_patterns, '{%}')) as pattern) as wanted
       cross join lateral (
             select run.id
               from {schema}.workflow_run as run
              where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                and run.type >= wanted.low and run.type < wanted.high
              order by run.type, run.priority, run.run_at
              limit p_at_most + 1) as run
       limit p_at_most + 1);
    v_ids := v_ids || array(
      select run.id
        from {schema}.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and run.is_suspect
       order by run.run_at
       limit p_at_most + 1);
  end if;
  if 'leased' = any (p_statuses) then
    v_ids := v_ids || array(
      select run.id
        from {schema}.workflow_run as run
       where run.status = 'leased'
       order by run.leased_by
       limit p_at_most + 1);
  end if;
  return case when cardinality(v_ids) <= p_at_most then v_ids end;
end
$fn$;

-- Find up to p_limit runs of any of the patterns and statuses, newest first: in the order of the ids, which is that of
-- time where the database makes them.
--
-- No index serves every filter: each would cost every run.  So p_looks bounds how many runs are looked at, and
-- p_look_seconds how long, asked after each 500: runs that are far apart on a cold disk take longer.  Where next_before is
-- not null there may be more: call again with it as p_before.  A page that is not full then was looked for back to
-- looked_back_to.  Both null: look at all of them, however long it takes.
--
-- Pages of disk cost the planner nothing here, so that it counts rows: an index of few beats one of all.
--
-- Where p_looks bounds it, looking begins at the ids made before p_created_before.  Those above come last: runs with an
-- id from elsewhere, or recorded in a transaction that had begun before that time.
--
-- p_payload: only runs whose payload contains it (jsonb's @>).  Each payload that is looked at is read for that, so the
-- time is asked for after each 20.
create function {schema}.find_runs(
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_before uuid default null,
  p_limit int default 50,
  p_looks int default 10000,
  p_look_seconds double precision default 0.025,
  p_payload jsonb default null,
  out ids uuid[], out next_before uuid, out looked_at bigint, out looked_back_to timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set seq_page_cost = 0 set random_page_cost = 0 as $fn$
declare
  c_looks_untimed constant int := case when p_payload is null then 500 else 20 end;
  c_above_all constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  -- The first id that was made later than p_created_before.
  v_later uuid := case when p_looks is not null then {schema}.first_id_at(p_created_before + interval '1 ms') end;
  v_deadline timestamptz := clock_timestamp() + make_interval(secs => p_look_seconds);
  v_is_later boolean := coalesce(p_before > v_later, false);
  v_before uuid := coalesce(p_before, v_later);
  v_few uuid[];
  v_sources text[];
  v_match text;
  v_query text;
  v_id uuid;
  v_created_at timestamptz;
  v_is_match boolean;
begin
  if p_limit < 1 or p_looks < 1 then
    raise exception using errcode = 'WF002',
      message = format('%s: expected 1 or more, got %s', case when p_limit < 1 then 'p_limit' else 'p_looks' end,
                       least(p_limit, p_looks));
  end if;
  ids := '{}';
  looked_at := 0;
  -- Written out, not given as parameters: it is evaluated for every run that is looked at.
  v_match := 'run.deleted_at is null';
  if p_patterns is not null then
    v_match := v_match || ' and (' || coalesce((
      select string_agg(case when right(pattern, 1) = '%' then format('starts_with(run.type, %L)', left(pattern, -1))
                             else format('run.type = %L', pattern) end, ' or ')
        from unnest(p_patterns) as pattern), 'false') || ')';
  end if;
  v_match := v_match || case when p_created_from is not null then ' and run.created_at >= $2' else '' end
                     || case when p_created_before is not null then ' and run.created_at < $3' else '' end
                     || case when p_payload is not null then ' and run.payload @> $4' else '' end;

  -- Each status its own query, where an index of its runs helps; else all runs.
  if p_statuses is not null and not 'succeeded' = any (p_statuses) then
    v_few := {schema}.few_ids(p_patterns, p_statuses, least(1000, p_looks));
    if v_few is not null then
      v_sources := array(select format('run.status = %L', status)
                           from unnest(array['waiting', 'failed', 'cancelled']) as status
                          where status = any (p_statuses));
      if cardinality(v_few) > 0 then
        v_sources := v_sources || 'run.id = any ($1)'::text;
      end if;
    end if;
  end if;
  if v_sources is null then
    v_sources := array['true'];
    v_match := v_match || coalesce(' and run.status = any (' || quote_literal(p_statuses) || '::text[])', '');
  end if;

  loop
    select 'select looked.id, looked.created_at, looked.is_match from ('
           || string_agg(format('(select run.id, run.created_at, coalesce(%s, false) as is_match'
                             ' from {schema}.workflow_run as run where %s%s%s order by run.id desc limit %s)',
                             v_match, source, coalesce(' and run.id < ' || quote_literal(v_before), ''),
                             case when v_is_later then format(' and run.id >= %L', v_later) else '' end,
                             coalesce((p_looks - looked_at)::text, 'all')), ' union all ')
           || ') as looked order by looked.id desc'
      into v_query
      from unnest(v_sources) as source;
    exit when v_query is null;  -- nothing can match
    for v_id, v_created_at, v_is_match in execute v_query using v_few, p_created_from, p_created_before, p_payload loop
      looked_at := looked_at + 1;
      if v_is_match then
        if cardinality(ids) = p_limit then
          next_before := ids[p_limit];
          looked_back_to := null;
          return;
        end if;
        ids := ids || v_id;
      end if;
      looked_back_to := case when not v_is_later then v_created_at end;
      if looked_at = p_looks or looked_at % c_looks_untimed = 0 and clock_timestamp() >= v_deadline then
        next_before := v_id;
        return;
      end if;
    end loop;
    exit when v_later is null or v_is_later;
    v_is_later := true;
    v_before := c_above_all;
  end loop;
  looked_back_to := null;
end
$fn$;

-- The runs of any of the patterns and statuses, newest first, those before p_before on the page before.  It looks as
-- far as it must, at all runs where few match; find_runs does not.
create function {schema}.list_runs(
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_before uuid default null,
  p_limit int default 50,
  p_payload jsonb default null)
returns setof {schema}.workflow_run
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $fn$
begin
  return query execute format('select %s from {schema}.workflow_run where id = any ($1) order by workflow_run.id desc',
                              {schema}.readable_columns('{schema}.workflow_run'))
    using (select found.ids
             from {schema}.find_runs(p_patterns, p_statuses, p_created_from, p_created_before, p_before, p_limit,
                                     p_looks => null, p_look_seconds => null, p_payload => p_payload) as found);
end
$fn$;

-- What find_runs found, as one row for each run; at least one row, without a run where there is none.
create function {schema}.list_page(
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_before uuid default null,
  p_limit int default 50,
  p_looks int default 10000,
  p_look_seconds double precision default 0.025,
  p_payload jsonb default null)
returns table (run {schema}.workflow_run, next_before uuid, looked_at bigint, looked_back_to timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ids uuid[];
begin
  select found.ids, found.next_before, found.looked_at, found.looked_back_to
    into v_ids, next_before, looked_at, looked_back_to
    from {schema}.find_runs(p_patterns, p_statuses, p_created_from, p_created_before, p_before, p_limit, p_looks,
                            p_look_seconds, p_payload) as found;
  if cardinality(v_ids) = 0 then
    return next;
  end if;
  return query
    select one, list_page.next_before, list_page.looked_at, list_page.looked_back_to
      from {schema}.get_runs(v_ids) as one
     order by array_position(v_ids, one.id);
end
$fn$;

-- The run that has a key, and those that a worker holds: in the order of their ids, newest first.
create function {schema}.find_key(p_key text) returns setof uuid language sql stable
set search_path = pg_catalog, pg_temp as $fn$
  select run.id from {schema}.workflow_run as run where run.idempotency_key = p_key and run.deleted_at is null
$fn$;

create function {schema}.find_held(p_worker text, p_limit int default 200) returns setof uuid language sql stable
set search_path = pg_catalog, pg_temp as $fn$
  select held.id
    from (select run.id from {schema}.workflow_run as run
           where run.status = 'leased' and run.leased_by = p_worker
           limit p_limit) as held
   order by held.id desc
$fn$;

create function {schema}.list_events(p_run_id uuid, p_after bigint default 0, p_limit int default 10000)
returns setof {schema}.workflow_event
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $fn$
begin
  return query execute format(
      'select %s from {schema}.workflow_event where workflow_id = $1 and id > $2 order by workflow_event.id limit $3',
      {schema}.readable_columns('{schema}.workflow_event'))
    using p_run_id, p_after, p_limit;
end
$fn$;

-- The policies that apply now, the least specific first.
create function {schema}.list_policies()
returns table (pattern text, keeps_events boolean, keeps_succeeded boolean, applies_from timestamptz, set_by text)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select policy.pattern::text, policy.keeps_events, policy.keeps_succeeded, policy.applies_from, policy.set_by
    from {schema}.workflow_policy as policy
   where policy.applies_until is null
   order by right(policy.pattern, 1) <> '%', length(policy.pattern), policy.pattern
$fn$;

-- Which of these runs have ended.  What everybody who waits in one process asks in one statement.
create function {schema}.ended_runs(p_ids uuid[]) returns table (id uuid, status text)
language sql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $fn$
  select run.id, run.status
    from {schema}.workflow_run as run
   where run.id = any (p_ids) and run.status in ('succeeded', 'failed', 'cancelled')
$fn$;
