-- Operations: one change asked for once, of all the runs that a filter matches.  Whoever carries it out, a worker or a
-- client, does so in chunks, each a short transaction of its own that also writes how far it has come: so it goes on
-- where it was, whoever dies.

create table {schema}.workflow_operation (
  id             uuid        not null default {schema}.uuid7(),
  kind           text        not null,
  filter         jsonb       not null,
  attempts       int,
  reason         text        not null,
  state          text        not null default 'running',
  matched        bigint,
  done           bigint      not null default 0,
  changed        bigint      not null default 0,
  requested_by   text        not null default session_user,
  on_behalf_of   text        default {schema}.on_behalf_of(),
  requested_at   timestamptz not null default clock_timestamp(),
  started_at     timestamptz,
  ended_at       timestamptz,
  stopped_by     text,
  error          text,
  carried_by     text        collate "C",
  carried_until  timestamptz,
  cursor         jsonb       not null default '{}',
  constraint workflow_operation_pkey primary key (id),
  constraint workflow_operation_kind check (kind in ('cancel', 'reopen') and (kind = 'reopen') = (attempts is not null)),
  constraint workflow_operation_state check (
    state in ('running', 'stopped', 'finished', 'failed') and (state = 'running') = (ended_at is null))
);

-- Whether there is anything to carry out is one look at an empty page.
create index workflow_operation_running on {schema}.workflow_operation (requested_at) where state = 'running';

comment on table {schema}.workflow_operation is
  'Changes of all the runs that a filter matches: who asked for what, why, and how far it has come.';

create trigger a_guard_change before insert or update or delete or truncate on {schema}.workflow_operation
  for each statement execute function {schema}.guard_history();

-- ── which runs ─────────────────────────────────────────────────────────────────────────────────────

-- Walk on through the runs that an operation of that kind may change and that its filter matches: from p_walk (an empty
-- object: from the beginning) until p_limit were found or p_looks were looked at; where to go on is walk, null at the
-- end.  p_limit null: only count.
--
-- Each status has its own index, and its own steps, so that nothing is looked at that has another one: a million runs
-- that have ended cost the cancel of some that wait nothing.  Backwards, against claims, which take the front of a
-- lane; what is recorded or comes back meanwhile is behind.  p_asked_at: only runs recorded by then, and only those
-- that had ended by then to reopen, so that it ends, and reopens no run that failed again since.
create function {schema}.walk_runs(
  p_kind text,
  p_filter jsonb,
  p_asked_at timestamptz,
  p_walk jsonb,
  p_limit int,
  p_looks int,
  out ids uuid[], out runs int, out walk jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off
set seq_page_cost = 0 set random_page_cost = 0 as $fn$
declare
  v_patterns text[] := array(select jsonb_array_elements_text(p_filter -> 'pattern'));
  v_statuses text[] := array(select jsonb_array_elements_text(p_filter -> 'status'));
  v_from timestamptz := p_filter ->> 'created_from';
  v_before timestamptz := p_filter ->> 'created_before';
  v_asked uuid := {schema}.first_id_at(p_asked_at);
  v_match text;
  v_sources text[];
  v_keys text[];
  v_step int := coalesce((p_walk ->> 'step')::int, 1);
  v_at jsonb := p_walk -> 'at';
  v_looked int := 0;
  v_row record;
begin
  ids := '{}';
  runs := 0;
  -- One source for each lane range and each other status: its rows, and the columns of its order.
  select array_agg(step.source order by step.position), array_agg(step.keys order by step.position)
    into v_sources, v_keys
    from (select case when right(pattern, 1) = '%' then format('run.type >= %L and run.type < %L', left(pattern, -1),
                                                            left(pattern, -1) || '~')
                      else format('run.type = %L', pattern) end
                 || ' and run.status = ''pending'' and run.deleted_at is null and not run.is_suspect',
                 'type priority run_at id', 1000 + position
            from unnest(v_patterns) with ordinality as wanted (pattern, position)
           where 'pending' = any (v_statuses)
          union all
          select 'run.status = ''pending'' and run.deleted_at is null and run.is_suspect', 'run_at id', 2000
           where 'pending' = any (v_statuses)
          union all
          select 'run.status = ''leased''', 'leased_by id', 2001 where 'leased' = any (v_statuses)
          union all
          select format('run.status = %L', status), 'id', 2002 + position
            from unnest(array['waiting', 'failed', 'cancelled']) with ordinality as wanted (status, position)
           where status = any (v_statuses)) as step (source, keys, position);
  v_match := 'run.deleted_at is null and (run.created_at <= $1 or run.id < $2) and (' || (
      select string_agg(case when right(pattern, 1) = '%' then format('starts_with(run.type, %L)', left(pattern, -1))
                             else format('run.type = %L', pattern) end, ' or ')
        from unnest(v_patterns) as pattern) || ')'
    || case when v_from is not null then ' and run.created_at >= $3' else '' end
    || case when v_before is not null then ' and run.created_at < $4' else '' end
    || case when p_kind = 'reopen' then ' and run.finished_at <= $1' else '' end;

  while v_step <= cardinality(v_sources) loop
    for v_row in execute (
      select format('select run.id, coalesce(%s, false) as is_match, jsonb_build_array(%s) as at'
                    ' from {schema}.workflow_run as run where %s%s order by %s limit %s',
                    v_match, string_agg('run.' || key, ', ' order by position), v_sources[v_step],
                    case when v_at is not null
                         then format(' and (%s) < (%s)', string_agg('run.' || key, ', ' order by position),
                                     string_agg(format('%L::%s', v_at ->> (position - 1)::int,
                                                       case key when 'id' then 'uuid' when 'run_at' then 'timestamptz'
                                                                when 'priority' then 'int' else 'text' end),
                                                ', ' order by position))
                         else '' end,
                    string_agg('run.' || key || ' desc', ', ' order by position), p_looks - v_looked)
        from unnest(string_to_array(v_keys[v_step], ' ')) with ordinality as part (key, position))
      using p_asked_at, v_asked, v_from, v_before
    loop
      v_looked := v_looked + 1;
      v_at := v_row.at;
      if v_row.is_match then
        runs := runs + 1;
        if p_limit is not null then
          ids := ids || v_row.id;
        end if;
      end if;
      if runs = p_limit or v_looked = p_looks then
        walk := jsonb_build_object('step', v_step, 'at', v_at);
        return;
      end if;
    end loop;
    v_step := v_step + 1;
    v_at := null;
  end loop;
end
$fn$;

-- The filter of an operation, checked, as it is kept: patterns none of which covers another, statuses that the kind may
-- change (all of them, if none are named).
create function {schema}.operation_filter(
  p_kind text, p_patterns text[], p_statuses text[], p_created_from timestamptz, p_created_before timestamptz)
returns jsonb language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_may text[] := case p_kind when 'cancel' then array['pending', 'leased', 'waiting']
                              when 'reopen' then array['failed', 'cancelled'] end;
  v_pattern text;
begin
  if v_may is null then
    raise exception using errcode = 'WF002',
      message = format('p_kind: expected cancel or reopen, got %s',
                       coalesce(quote_literal(regexp_replace(left(p_kind, 60), '[[:cntrl:]]', '?', 'g')), 'null'));
  elsif coalesce(cardinality(p_patterns), 0) not between 1 and 100 then
    raise exception using errcode = 'WF002',
      message = format('p_patterns: expected 1 to 100, got %s', coalesce(cardinality(p_patterns), 0)),
      hint = 'the pattern of all types is %';
  elsif cardinality(p_statuses) = 0 or not coalesce(p_statuses <@ v_may, true)
        or array_position(p_statuses, null) is not null then
    raise exception using errcode = 'WF002',
      message = format('p_statuses: expected some of %s to %s', array_to_string(v_may, ', '), p_kind);
  elsif not coalesce(isfinite(p_created_from) and isfinite(p_created_before), true) then
    raise exception using errcode = 'WF002', message = 'p_created_from, p_created_before: expected finite times';
  end if;
  foreach v_pattern in array p_patterns loop
    if v_pattern is null or length(v_pattern) > 200 or v_pattern !~ '^([A-Za-z0-9_.-]+%?|%)$' then
      raise exception using errcode = 'WF002',
        message = format('p_patterns: expected types, or prefixes that end in %%, got %s',
                         coalesce(quote_literal(regexp_replace(left(v_pattern, 60), '[[:cntrl:]]', '?', 'g')), 'null'));
    end if;
  end loop;
  return jsonb_strip_nulls(jsonb_build_object(
    'pattern', to_jsonb(array(
      select distinct one from unnest(p_patterns) as one
       where not exists (select from unnest(p_patterns) as other
                          where other <> one and right(other, 1) = '%' and starts_with(one, left(other, -1)))
       order by one)),
    'status', to_jsonb(array(select may from unnest(v_may) as may where may = any (coalesce(p_statuses, v_may)))),
    'created_from', p_created_from, 'created_before', p_created_before));
end
$fn$;

-- ── ask, stop ──────────────────────────────────────────────────────────────────────────────────────

-- Ask for a change of all the runs that the filter matches; return what was written down.  Workers carry it out.
create function {schema}.operate(
  p_kind text,
  p_patterns text[],
  p_reason text,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_attempts int default 3)
returns {schema}.workflow_operation
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_filter jsonb := {schema}.operation_filter(p_kind, p_patterns, p_statuses, p_created_from, p_created_before);
  v_operation {schema}.workflow_operation;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception using errcode = 'WF002', message = 'p_reason: expected why, got nothing',
      hint = 'it is kept with the operation and with each run that it changes';
  elsif p_kind = 'reopen' and (p_attempts between 1 and 1000) is not true then
    raise exception using errcode = 'WF002', message = format('p_attempts: expected 1 to 1000, got %s', p_attempts);
  end if;
  perform set_config('workflow.transition', 'operation', true);
  insert into {schema}.workflow_operation (kind, filter, attempts, reason)
  values (p_kind, v_filter, case when p_kind = 'reopen' then p_attempts end, left(p_reason, 8000))
  returning * into v_operation;
  perform set_config('workflow.transition', '', true);
  return v_operation;
end
$fn$;

-- Count a part of the runs that such an operation would change now: from p_walk on, at most p_looks looked at.  walk,
-- unless it is null, begins the next part.
create function {schema}.count_operable(
  p_kind text,
  p_patterns text[],
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_walk jsonb default '{}',
  p_looks int default 10000,
  out runs bigint, out walk jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  if (p_looks > 0) is not true then
    raise exception using errcode = 'WF002', message = format('p_looks: expected 1 or more, got %s', p_looks);
  end if;
  select walked.runs, walked.walk into runs, walk
    from {schema}.walk_runs(
      p_kind, {schema}.operation_filter(p_kind, p_patterns, p_statuses, p_created_from, p_created_before),
      clock_timestamp(), coalesce(p_walk, '{}'), null, p_looks) as walked;
end
$fn$;

-- Stop an operation: when this returns, it changes no run any more; what it has changed stays.  Return whether this
-- call changed that; null: there is no such operation.
create function {schema}.stop_operation(p_id uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_is_running boolean;
begin
  -- Waits for the chunk that is being carried out.
  select operation.state = 'running' into v_is_running
    from {schema}.workflow_operation as operation where operation.id = p_id for update;
  if v_is_running then
    perform set_config('workflow.transition', 'operation', true);
    update {schema}.workflow_operation as operation
       set state = 'stopped', ended_at = clock_timestamp(), carried_by = null, carried_until = null,
           stopped_by = coalesce({schema}.on_behalf_of(), session_user)
     where operation.id = p_id;
    perform set_config('workflow.transition', '', true);
  end if;
  return v_is_running;
end
$fn$;

-- ── carry out ──────────────────────────────────────────────────────────────────────────────────────

-- What a worker looks for now and then, in one look: when the next lease lapses (null: nothing is leased), and whether
-- there is an operation to carry out.
create function {schema}.next_upkeep(out lease_until timestamptz, out has_operations boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp as $fn$
  select {schema}.next_lease_until(),
         exists (select from {schema}.workflow_operation as operation where operation.state = 'running')
$fn$;

-- Carry out the next chunk of the operation that was asked for first: at most p_limit runs.  Return how it stands; no
-- row: there is nothing to do for this carrier, because somebody else carries it out.  Who has done a chunk has
-- p_lease_seconds to do the next before another takes over.
--
-- First all is counted, in chunks too.  Then runs are changed, and what somebody has locked, or what has gone from one
-- status to another past the walk, is found by walking again, until that changes nothing.  It waits for nobody, so
-- that it is in nobody's deadlock.  One operation at a time: two would slow claims twice.
create function {schema}.carry_operation(
  p_carrier text, p_limit int default 200, p_looks int default 5000, p_lease_seconds double precision default 5)
returns table (id uuid, state text, matched bigint, done bigint, changed bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $fn$
#variable_conflict use_column
declare
  v_op {schema}.workflow_operation;
  v_now timestamptz := clock_timestamp();
  v_pass int;
  v_ids uuid[];
  v_runs int;
  v_walk jsonb;
  v_changed int := 0;
  v_left int := 0;
  v_in_pass int;
  v_error text;
begin
  if p_carrier is null or (p_limit between 1 and 10000) is not true or (p_looks > 0) is not true
     or (p_lease_seconds between 0.1 and 3600) is not true then
    raise exception using errcode = 'WF002',
      message = 'p_carrier, p_limit, p_looks, p_lease_seconds: expected a name, 1 to 10000, 1 or more, 0.1 to 3600';
  end if;
  select operation.* into v_op
    from {schema}.workflow_operation as operation
   where operation.state = 'running'
   order by operation.requested_at
   limit 1;
  select operation.* into v_op
    from {schema}.workflow_operation as operation
   where operation.id = v_op.id and operation.state = 'running'
     and (operation.carried_by = p_carrier or coalesce(operation.carried_until < v_now, true))
     for update skip locked;
  if not found then
    return;
  end if;
  v_pass := coalesce((v_op.cursor ->> 'pass')::int, 0);   -- 0: it counts
  v_in_pass := coalesce((v_op.cursor ->> 'runs')::int, 0);
  select walked.ids, walked.runs, walked.walk into v_ids, v_runs, v_walk
    from {schema}.walk_runs(v_op.kind, v_op.filter, v_op.requested_at, coalesce(v_op.cursor -> 'walk', '{}'),
                            case when v_pass > 0 then p_limit end,
                            case when v_pass > 0 then p_looks else 2 * p_looks end) as walked;
  if v_pass > 0 then
    begin
      v_changed := {schema}.change_runs(v_op, v_ids);
      if v_changed < cardinality(v_ids) then
        v_left := (select count(*) from {schema}.left_of(v_op, v_ids));
      end if;
    exception when others then
      -- What may be over the next time: the connection, its resources, an operator, a conflict of two transactions.
      if left(sqlstate, 2) in ('08', '40', '53', '55', '57', '58') then
        raise;
      end if;
      v_error := format('%s (SQLSTATE %s)', sqlerrm, sqlstate);
    end;
    v_runs := v_changed + v_left;
  end if;
  v_in_pass := v_in_pass + v_runs;
  perform set_config('workflow.transition', 'operation', true);
  return query
  update {schema}.workflow_operation as operation
     set started_at = coalesce(operation.started_at, v_now),
         matched = case when v_pass = 0 and v_walk is null then v_in_pass else operation.matched end,
         done = operation.done + case v_pass when 0 then 0 when 1 then cardinality(v_ids) - v_left else v_changed end,
         changed = operation.changed + v_changed,
         cursor = case when v_walk is not null
                       then jsonb_build_object('pass', v_pass, 'runs', v_in_pass, 'walk', v_walk)
                       else jsonb_build_object('pass', v_pass + 1) end,
         state = case when v_error is not null then 'failed'
                      -- The passes are bounded for a run that is never to be had.
                      when v_walk is null and (v_pass > 0 and v_in_pass = 0 or v_pass >= 10) then 'finished'
                      else 'running' end,
         ended_at = case when v_error is not null
                              or v_walk is null and (v_pass > 0 and v_in_pass = 0 or v_pass >= 10)
                         then clock_timestamp() end,
         error = v_error,
         carried_by = p_carrier,
         carried_until = clock_timestamp() + make_interval(secs => p_lease_seconds)
   where operation.id = v_op.id
  returning operation.id, operation.state, operation.matched, operation.done, operation.changed;
  perform set_config('workflow.transition', '', true);
end
$fn$;

-- Those of these runs that an operation is still to change: not those that it has changed, and somebody has changed back,
-- as far as their events are kept.
create function {schema}.left_of(p_operation {schema}.workflow_operation, p_ids uuid[]) returns table (id uuid)
language sql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $fn$
  select run.id
    from {schema}.workflow_run as run
   where run.id = any (p_ids)
     and run.status = any (array(select jsonb_array_elements_text(p_operation.filter -> 'status')))
     and not exists (
           select from {schema}.workflow_event as event
            where event.workflow_id = run.id and event.event_type in ('cancelled', 'reopened')
              and event.data ->> 'operation' = p_operation.id::text)
$fn$;

-- Change those of these runs that nobody else has locked, in the name of who asked for the operation; return how many.
create function {schema}.change_runs(p_operation {schema}.workflow_operation, p_ids uuid[])
returns int
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $fn$
declare
  v_name text := jsonb_strip_nulls(jsonb_build_object(
    'operation', p_operation.id, 'by', p_operation.requested_by, 'on_behalf_of', p_operation.on_behalf_of));
  v_ids uuid[] := array(
    select run.id
      from {schema}.workflow_run as run
     where run.id in (select one.id from {schema}.left_of(p_operation, p_ids) as one)
       and run.status = any (array(select jsonb_array_elements_text(p_operation.filter -> 'status')))
       and run.deleted_at is null
       and (p_operation.kind <> 'reopen' or run.finished_at <= p_operation.requested_at)
     order by run.id
       for update of run skip locked);
begin
  if p_operation.kind = 'cancel' then
    return (select count(*) from {schema}.cancel_for(v_ids, p_operation.reason, v_name) as done where done.changed);
  end if;
  return (select count(*) from {schema}.reopen_for(v_ids, p_operation.attempts, p_operation.reason, v_name) as done
           where done.changed);
end
$fn$;

-- ── read ───────────────────────────────────────────────────────────────────────────────────────────

-- Operations, the last asked for first; with p_id that one.  With the caller's own rights.
create function {schema}.list_operations(p_id uuid default null, p_limit int default 50)
returns setof {schema}.workflow_operation
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select operation.*
    from {schema}.workflow_operation as operation
   where p_id is null or operation.id = p_id
   order by operation.id desc
   limit p_limit
$fn$;

revoke execute on function
  {schema}.walk_runs, {schema}.operation_filter, {schema}.operate, {schema}.count_operable, {schema}.stop_operation,
  {schema}.next_upkeep, {schema}.carry_operation, {schema}.left_of, {schema}.change_runs
  from public;
