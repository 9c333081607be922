-- The transitions, as functions.  A worker in any language is a loop over claim, heartbeat and finish.
--
-- All of them take their time from the database (clock_timestamp: a caller's transaction may be old), return
-- what they changed, and are fenced: a write of a worker names the run, its fencing token, and counts only
-- while the run is leased.  They say "leased_by is not null" for it, which the table's check makes the
-- same as status = 'leased': with the status itself the planner might walk a partial index instead of the id.
--
-- Lock order: whoever waits for several runs takes them in the order of their ids; claim and expire skip
-- what is locked and wait for nothing.  So none of them deadlocks with another.
--
-- Plans are pinned: without fresh statistics the planner otherwise sorts the whole backlog for one claim
-- (37 ms instead of 0.5 ms).

-- ── submit ─────────────────────────────────────────────────────────────────────────────────────────

-- One call holds its rows in memory and their locks until its end.
create function {schema}.refuse_count(p_name text, p_count bigint) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if p_count > 100000 then
    raise exception using errcode = 'WF002',
      message = format('%s: expected at most 100000 in one call, got %s', p_name, p_count);
  end if;
end
$fn$;

-- A delay that no interval can hold would fail with a message that names nothing.
create function {schema}.refuse_delays(p_delays_seconds double precision[]) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if exists (select from unnest(p_delays_seconds) as delay where delay not between 0 and 3155760000) then
    raise exception using errcode = 'WF002', message = 'delay_seconds: expected 0 to 3155760000, which is 100 years';
  end if;
end
$fn$;

-- Record one run; a key that exists returns the run that has it, created false.
create function {schema}.submit(
  p_type text,
  p_payload jsonb default '{}',
  p_idempotency_key text default null,
  p_priority int default 100,
  p_run_at timestamptz default null,
  p_delay_seconds double precision default 0,
  p_max_attempts int default 3,
  p_traceparent text default null)
returns table (id uuid, created boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
begin
  if p_delay_seconds <> 0 then
    perform {schema}.refuse_delays(array[p_delay_seconds]);
  end if;
  if p_idempotency_key is null then
    insert into {schema}.workflow_run (type, payload, priority, run_at, max_attempts, traceparent)
    values (p_type, p_payload, coalesce(p_priority, 100),
            coalesce(p_run_at, now()) + make_interval(secs => coalesce(p_delay_seconds, 0)),
            coalesce(p_max_attempts, 3), p_traceparent)
    returning workflow_run.id into id;
    created := true;
    return next;
    return;
  end if;
  loop
    insert into {schema}.workflow_run (type, payload, idempotency_key, priority, run_at, max_attempts, traceparent)
    values (p_type, p_payload, p_idempotency_key, coalesce(p_priority, 100),
            coalesce(p_run_at, now()) + make_interval(secs => coalesce(p_delay_seconds, 0)),
            coalesce(p_max_attempts, 3), p_traceparent)
    on conflict (idempotency_key) do nothing
    returning workflow_run.id into id;
    created := found;
    if not found then
      select run.id into id from {schema}.workflow_run as run where run.idempotency_key = p_idempotency_key;
    end if;
    exit when found;
    -- The run that had the key has been pruned in between: the key is free again.
  end loop;
  return next;
end
$fn$;

-- Record many runs in one statement; one row comes back for each, in the order given.
create function {schema}.submit_many(
  p_types text[],
  p_payloads jsonb[],
  p_idempotency_keys text[],
  p_priorities int[],
  p_run_ats timestamptz[],
  p_delays_seconds double precision[],
  p_max_attempts int[],
  p_traceparent text default null)
returns table (id uuid, created boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_ids uuid[] := array(select {schema}.uuid7() from generate_series(1, cardinality(p_types)));
  v_created uuid[];
  v_are_new boolean[];
  v_position int;
  v_again record;
begin
  perform {schema}.refuse_count('p_types', cardinality(p_types)), {schema}.refuse_delays(p_delays_seconds);
  if cardinality(p_payloads) is distinct from cardinality(p_types) then
    raise exception using errcode = 'WF002', message = 'p_types, p_payloads: expected the same number of each';
  end if;
  -- Without keys nothing can exist already, and nobody waits for anybody: a plain insert is a tenth cheaper.
  if (select bool_and(key is null) from unnest(p_idempotency_keys) as key) is not false then
    insert into {schema}.workflow_run (id, type, payload, priority, run_at, max_attempts, traceparent)
    select wanted.id, wanted.type, wanted.payload, coalesce(wanted.priority, 100),
           coalesce(wanted.run_at, now()) + make_interval(secs => coalesce(wanted.delay_seconds, 0)),
           coalesce(wanted.max_attempts, 3), p_traceparent
      from unnest(v_ids, p_types, p_payloads, p_priorities, p_run_ats, p_delays_seconds, p_max_attempts)
           as wanted (id, type, payload, priority, run_at, delay_seconds, max_attempts);
    return query select unnest(v_ids), true;
    return;
  end if;
  -- In the order of their keys: two producers with the same keys in another order would deadlock.  Of one key
  -- twice in a batch the first counts; their ids, made in one millisecond, may not be in order before 18.
  with inserted as (
    insert into {schema}.workflow_run (id, type, payload, idempotency_key, priority, run_at, max_attempts, traceparent)
    select wanted.id, wanted.type, wanted.payload, wanted.idempotency_key, coalesce(wanted.priority, 100),
           coalesce(wanted.run_at, now()) + make_interval(secs => coalesce(wanted.delay_seconds, 0)),
           coalesce(wanted.max_attempts, 3), p_traceparent
      from unnest(v_ids, p_types, p_payloads, p_idempotency_keys, p_priorities, p_run_ats, p_delays_seconds,
                  p_max_attempts) with ordinality
           as wanted (id, type, payload, idempotency_key, priority, run_at, delay_seconds, max_attempts, position)
     order by wanted.idempotency_key, wanted.position
    on conflict (idempotency_key) do nothing
    returning id)
  select array_agg(inserted.id) into v_created from inserted;

  if cardinality(v_created) = cardinality(v_ids) then
    return query select unnest(v_ids), true;
    return;
  end if;
  -- A snapshot older than a prune shows two runs of one key: the pruned one, and the one of this very batch.
  select array_agg(coalesce(mine.id, (
                     select existing.id
                       from {schema}.workflow_run as existing
                      where existing.idempotency_key = wanted.idempotency_key
                      order by existing.id = any (v_created) desc
                      limit 1)) order by wanted.position),
         array_agg(mine.id is not null order by wanted.position)
    into v_ids, v_are_new
    from unnest(v_ids, p_idempotency_keys) with ordinality as wanted (id, idempotency_key, position)
    left join unnest(v_created) as mine (id) on mine.id = wanted.id;
  -- A run that had the key has been pruned in between: the key is free again.
  loop
    v_position := array_position(v_ids, null);
    exit when v_position is null;
    select * into v_again
      from {schema}.submit(p_types[v_position], p_payloads[v_position], p_idempotency_keys[v_position],
                           p_priorities[v_position], p_run_ats[v_position], p_delays_seconds[v_position],
                           p_max_attempts[v_position], p_traceparent);
    v_ids[v_position] := v_again.id;
    v_are_new[v_position] := v_again.created;
  end loop;
  return query select answer.id, answer.created from unnest(v_ids, v_are_new) as answer (id, created);
end
$fn$;

-- ── claim ──────────────────────────────────────────────────────────────────────────────────────────

-- A lane is one (type, priority).  This is how far one has been claimed: everything up to this run, and it.
create type {schema}.lane as (type text collate "C", priority int, run_at timestamptz, id uuid);

-- Whether one of the patterns covers a type.
create function {schema}.covers(p_patterns text[], p_type text) returns boolean language sql immutable parallel safe
  return exists (select from unnest(p_patterns) as pattern
                  where pattern = p_type or right(pattern, 1) = '%' and starts_with(p_type, left(pattern, -1)));

-- Lock up to p_limit due runs of these lanes, best priority first, in each from where it has been claimed to.
--
-- Within a priority each lane gets its share, in the order given, but a tenth of the batch at least: of two hundred
-- lanes ten are probed, not all (5k instead of 20k runs/s).  lanes tells how to go on: who was served comes behind
-- the others of its priority, so that nobody starves; who was emptied is kept at the end, a few of them.
create function {schema}.lock_in_lanes(
  p_lanes {schema}.lane[], p_limit int, p_now timestamptz, out ids uuid[], out lanes {schema}.lane[])
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = on set jit = off
set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_lanes {schema}.lane[] := p_lanes;
  v_from int := 1;
  v_to int;
  v_queue {schema}.lane[];
  v_lane {schema}.lane;
  v_empty {schema}.lane[];
  v_empty_left int := 16;
  v_count int;
  v_next int;
  v_share int;
  v_locked uuid[];
  v_last timestamptz;
begin
  ids := '{}';
  lanes := '{}';
  if cardinality(p_lanes) > 1 then
    v_lanes := array(select row(lane.type, lane.priority, lane.run_at, lane.id)::{schema}.lane
                       from unnest(p_lanes) with ordinality as lane (type, priority, run_at, id, position)
                      order by lane.priority, lane.position);
  end if;
  while v_from <= cardinality(v_lanes) loop
    v_to := v_from;
    while v_lanes[v_to + 1].priority = v_lanes[v_from].priority loop
      v_to := v_to + 1;
    end loop;
    v_queue := v_lanes[v_from:v_to];
    v_from := v_to + 1;
    v_count := cardinality(v_queue);
    v_next := 1;
    v_empty := '{}';
    while v_next <= cardinality(v_queue) and cardinality(ids) < p_limit loop
      v_lane := v_queue[v_next];
      v_share := ceil((p_limit - cardinality(ids))::numeric / greatest(1, v_count - v_next + 1));
      v_share := least(p_limit - cardinality(ids), greatest(v_share, p_limit / 10));
      v_next := v_next + 1;
      select coalesce(array_agg(locked.id), '{}'), max(locked.run_at) into v_locked, v_last
        from (select run.id, run.run_at
                from {schema}.workflow_run as run
               where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                 and run.type = v_lane.type and run.priority = v_lane.priority and run.run_at <= p_now
                 and (run.run_at, run.id) > (v_lane.run_at, v_lane.id)
               order by run.run_at, run.id
               limit v_share
                 for update skip locked) as locked;
      if v_last is not null then
        ids := ids || v_locked;
        v_lane.run_at := v_last;
        v_lane.id := v_locked[cardinality(v_locked)];
      end if;
      if cardinality(v_locked) = v_share then
        v_queue := v_queue || v_lane;
      elsif v_empty_left > 0 then
        v_empty := v_empty || v_lane;
        v_empty_left := v_empty_left - 1;
      end if;
    end loop;
    lanes := lanes || v_queue[v_next:] || v_empty;
  end loop;
end
$fn$;

-- Lock up to p_limit due runs of the patterns, but of no type that p_disabled covers, best priority first, as lock_in_lanes
-- does; tell how to go on, and when the next run is due, if nothing was.
--
-- One index probe finds a type's best lane, and another lane of the type is looked for only when the better ones gave
-- too little: a million runs of other types, or of better priority but due tomorrow, cost a probe for each lane,
-- not for each run.
create function {schema}.lock_due_runs(
  p_patterns text[], p_limit int, p_now timestamptz, p_disabled text[],
  out ids uuid[], out lanes {schema}.lane[], out next_due_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = on set jit = off
set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  c_last constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  c_moment constant interval := '1 microsecond';
  c_best constant bigint := -2147483648;   -- of an int
  v_patterns text[] := coalesce(p_patterns, '{}');
  v_pattern text;
  v_prefix text collate "C";
  v_from text collate "C" := '';
  v_before text collate "C";
  v_best bigint := c_best;
  v_sole text collate "C";
  v_head {schema}.lane;
  v_heads {schema}.lane[] := '{}';
  v_last timestamptz;
  v_due {schema}.lane[];
  v_priority int;
  v_locked record;
begin
  ids := '{}';
  lanes := '{}';

  -- The best lane of each type.  Every character of a type sorts above '!' and below '~'.
  if cardinality(p_patterns) > 1 then
    v_patterns := array(select pattern from unnest(p_patterns) as pattern
                         order by case when right(pattern, 1) = '%' then left(pattern, -1) else pattern end collate "C");
  end if;
  foreach v_pattern in array v_patterns loop
    v_prefix := case when right(v_pattern, 1) = '%' then left(v_pattern, -1) else v_pattern end;
    v_before := v_prefix || case when right(v_pattern, 1) = '%' then '~' else '!' end;
    if v_from < v_prefix then
      v_from := v_prefix;
      v_best := c_best;
    end if;
    loop
      select run.type, run.priority, run.run_at, c_last into v_head
        from {schema}.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
         and (run.type, run.priority) >= (v_from, v_best) and run.type < v_before
       order by run.type, run.priority, run.run_at
       limit 1;
      exit when not found;
      v_from := v_head.type || '!';
      v_best := c_best;
      if v_head.type = v_sole then
        v_sole := null;   -- its second
      elsif p_disabled is null or not {schema}.covers(p_disabled, v_head.type) then
        v_heads := v_heads || v_head;
        v_sole := null;
        if cardinality(v_heads) = 1 then   -- the same probe tells of the next type and of the next lane of this one
          v_sole := v_head.type;
          v_from := v_head.type;
          v_best := v_head.priority::bigint + 1;
        end if;
      end if;
    end loop;
  end loop;

  -- Mostly one lane waits, or none.  What follows would do the same, by sixty expressions more: they cost little, but a
  -- server that has been idle has none of them in its caches.
  if v_sole is not null then
    v_head := v_heads[1];
    if v_head.run_at > p_now then
      next_due_at := v_head.run_at;
      return;
    end if;
    select array_agg(locked.id), max(locked.run_at) into ids, v_last
      from (select run.id, run.run_at
              from {schema}.workflow_run as run
             where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
               and run.type = v_head.type and run.priority = v_head.priority
               and run.run_at >= v_head.run_at and run.run_at <= p_now
             order by run.run_at, run.id
             limit p_limit
               for update skip locked) as locked;
    if v_last is not null then
      lanes := array[row(v_head.type, v_head.priority, v_last, ids[cardinality(ids)])::{schema}.lane];
      return;
    end if;
    ids := '{}';   -- others have locked all of it
  end if;

  while cardinality(v_heads) > 0 and cardinality(ids) < p_limit loop
    -- The lanes in which something is due, priority after priority; a few more than this batch needs, for the next ones.
    -- Each as if all before its first run had been claimed.
    v_due := '{}';
    while cardinality(v_heads) > 0 and cardinality(v_due) < 64 loop
      if cardinality(v_heads) = 1 then   -- what follows would do the same, in five times the time
        v_head := v_heads[1];
        if v_head.run_at <= p_now then
          v_due := v_due || row(v_head.type, v_head.priority, v_head.run_at - c_moment, c_last)::{schema}.lane;
        else
          next_due_at := least(next_due_at, v_head.run_at);
        end if;
        select run.type, run.priority, run.run_at, c_last into v_head
          from {schema}.workflow_run as run
         where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
           and run.type = v_head.type and run.priority > v_head.priority
         order by run.priority, run.run_at
         limit 1;
        v_heads := case when found then array[v_head] else '{}'::{schema}.lane[] end;
        continue;
      end if;
      select min(head.priority) into v_priority from unnest(v_heads) as head;
      -- Who has waited longest first.  But where a tenth of a batch is more than one run, ten that have many would keep
      -- the others waiting: then by chance.
      select v_due || coalesce(array_agg(row(head.type, head.priority, head.run_at - c_moment, c_last)::{schema}.lane
                                         order by case when head.due_count > 10 and p_limit >= 20 then random() end,
                                                  head.run_at)
                               filter (where head.run_at <= p_now), '{}'),
             least(next_due_at, min(head.run_at) filter (where head.run_at > p_now))
        into v_due, next_due_at
        from (select head.type, head.priority, head.run_at, head.id,
                     count(*) filter (where head.run_at <= p_now) over () as due_count
                from unnest(v_heads) as head
               where head.priority = v_priority) as head;
      -- The next lane of each type that had this priority.
      v_heads := array(
        select row(head.type, head.priority, head.run_at, head.id)::{schema}.lane
          from unnest(v_heads) as head
         where head.priority > v_priority
         union all
        select row(following.type, following.priority, following.run_at, c_last)::{schema}.lane
          from unnest(v_heads) as head
         cross join lateral (
               select run.type, run.priority, run.run_at
                 from {schema}.workflow_run as run
                where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                  and run.type = head.type and run.priority > head.priority
                order by run.priority, run.run_at
                limit 1) as following
         where head.priority = v_priority);
    end loop;

    v_locked := {schema}.lock_in_lanes(v_due, p_limit - cardinality(ids), p_now);
    ids := ids || v_locked.ids;
    lanes := lanes || v_locked.lanes;
    -- All that was due there is locked by others: the next that they have not.
    if cardinality(ids) = 0 then
      select least(next_due_at, min(later.run_at)) into next_due_at
        from unnest(v_due) as lane
       cross join lateral (
             select run.run_at
               from {schema}.workflow_run as run
              where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                and run.type = lane.type and run.priority = lane.priority and run.run_at > p_now
              order by run.run_at
              limit 1) as later;
    end if;
  end loop;
  lanes := lanes[:256];
end
$fn$;

-- Lock one suspect that is due: a run that may be what killed its workers.  Here and below what covers does is written
-- out: 5,000 suspects of a paused type cost an idle claim 3 ms so, and 27 ms by calls.
create function {schema}.lock_due_suspect(p_patterns text[], p_now timestamptz) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set plan_cache_mode = force_generic_plan as $fn$
begin
  return (
    select run.id
      from {schema}.workflow_run as run
     where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= p_now
       and exists (
             select from unnest(p_patterns) as pattern
              where pattern = run.type or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1)))
       and not exists (
             select from {schema}.workflow_registry as disabled
              where not disabled.is_enabled
                and (disabled.workflow_name = run.type
                     or right(disabled.workflow_name, 1) = '%'
                        and starts_with(run.type, left(disabled.workflow_name, -1))))
     order by run.run_at
     limit 1
       for update skip locked);
end
$fn$;

-- Whether a suspect that may be claimed has waited for ten seconds, and nobody runs one now.
create function {schema}.has_suspect_waiting(p_patterns text[], p_now timestamptz) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select exists (
           select from {schema}.workflow_run as run
            where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= p_now
              and run.updated_at < p_now - interval '10 seconds'
              and exists (
                    select from unnest(p_patterns) as pattern
                     where pattern = run.type or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1)))
              and not exists (
                    select from {schema}.workflow_registry as disabled
                     where not disabled.is_enabled
                       and (disabled.workflow_name = run.type
                            or right(disabled.workflow_name, 1) = '%'
                               and starts_with(run.type, left(disabled.workflow_name, -1)))))
         and not exists (
           select from {schema}.workflow_run as run where run.status = 'leased' and run.is_suspect)
$fn$;

-- ── finish, heartbeat, release ─────────────────────────────────────────────────────────────────────

-- These, cancel and reopen read the runs by `id = any (p_ids)`, in the order of the index, and hash what is to be done
-- with each.  A nested loop over p_ids costs the same, but on a table analyzed while it was small the planner turns it
-- round, keeps that plan, and reads every run for each batch: 93 instead of 28 microseconds a run at 50,000 runs.

-- At most 64 kB of an error: its head and its tail.
create function {schema}.bound_error(p_error text) returns text language sql immutable parallel safe
  return case when octet_length(p_error) <= 65536 then p_error
              else left(p_error, 8000) || E'\n... left out ...\n' || right(p_error, 8000) end;

-- Whether a result or a progress note prints as at most so many bytes, with at most 100 levels (which take 812 bytes).
create function {schema}.fits(p_value jsonb, p_bytes_max int) returns boolean language sql immutable parallel safe
  return case when pg_column_size(p_value) <= 800 then octet_length(p_value::text) <= p_bytes_max
              when {schema}.nests_beyond_limit(p_value) then false
              when pg_column_size(p_value) > 2000 and {schema}.prints_beyond_limit(p_value) then false
              else octet_length(p_value::text) <= p_bytes_max end;

-- How long a retry waits when its handler says nothing: attempt² minutes ± 10 %, at most 6 hours.
create function {schema}.default_backoff_seconds(p_attempt int) returns double precision language sql
  volatile parallel safe
  return least(21600, 60.0 * p_attempt * p_attempt * (0.9 + 0.2 * random()));

-- End attempts: status 'succeeded', 'failed', or 'pending' to retry after the delay (null: the default
-- rule), which becomes 'failed' when no attempt is left.  Returns the runs that were still held; the others
-- were lost or cancelled, and nothing of them has changed.
--
-- Where a policy keeps no succeeded runs, success is the deletion; without any such policy that costs one look at an
-- empty index.
create function {schema}.finish(
  p_worker text,
  p_ids uuid[],
  p_tokens bigint[],
  p_statuses text[],
  p_results jsonb[] default null,
  p_errors text[] default null,
  p_delays_seconds double precision[] default null)
returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set enable_hashjoin = on set jit = off set plan_cache_mode = force_generic_plan as $fn$
declare
  v_now timestamptz := clock_timestamp();
  v_deleted bigint;
  v_set text;   -- assigned, since a perform costs ten times as much
begin
  if (cardinality(p_tokens), cardinality(p_statuses)) is distinct from (cardinality(p_ids), cardinality(p_ids)) then
    raise exception using errcode = 'WF002', message = 'p_ids, p_tokens, p_statuses: expected the same number of each';
  elsif not p_statuses <@ array['succeeded', 'failed', 'pending'] then
    raise exception using errcode = 'WF002', message = 'p_statuses: expected succeeded, failed or pending';
  elsif num_nonnulls(variadic p_results) > 0
        and exists (select from unnest(p_results) as wanted (result)
                     where not {schema}.fits(result, 1048576)) then
    raise exception using errcode = 'WF002',
      message = 'p_results: expected at most 1048576 bytes as text and 100 levels each, got more',
      hint = 'keep large data elsewhere and return a reference to it';
  end if;
  v_set := set_config('workflow.transition', 'finish', true) || set_config('workflow.actor', p_worker, true);
  if exists (select from {schema}.workflow_policy as policy
              where policy.applies_until is null and not policy.keeps_succeeded)
  then
    return query select {schema}.delete_succeeded(p_worker, p_ids, p_tokens, p_statuses);
    get diagnostics v_deleted = row_count;
    if v_deleted = cardinality(p_ids) then
      v_set := set_config('workflow.transition', '', true);
      return;
    end if;
  end if;
  return query
  update {schema}.workflow_run as run
     set status = case when done.status = 'pending' and run.attempt >= run.max_attempts then 'failed'
                       else done.status end,
         -- Attempts that crashes in company took are given back to a run that ends well: it was another's fault.
         attempt = case when done.status = 'succeeded' then run.attempt - run.crashes else run.attempt end,
         crashes = 0,
         is_suspect = false,
         result = done.result,
         last_error = coalesce({schema}.bound_error(done.error), run.last_error),
         run_at = case when done.status = 'pending' and run.attempt < run.max_attempts
                       then v_now + make_interval(secs => least(31536000, greatest(0, coalesce(
                              nullif(done.delay_seconds, 'NaN'),
                              {schema}.default_backoff_seconds(run.attempt)))))
                       else run.run_at end,
         finished_at = case when done.status <> 'pending' or run.attempt >= run.max_attempts then v_now end,
         leased_by = null,
         lease_until = null,
         updated_at = v_now
    from (select * from unnest(p_ids, p_tokens, p_statuses, p_results, p_errors, p_delays_seconds)
                     as wanted (id, token, status, result, error, delay_seconds)
           order by wanted.id) as done
   where run.id = any (p_ids)
     and run.id = done.id
     and run.fencing_token = done.token   -- the fence: a run claimed again has a higher token
     and run.leased_by = p_worker
  returning run.id;
  v_set := set_config('workflow.transition', '', true);
end
$fn$;

-- Extend leases, never shorten them.  One row for each run named: 'leased' (still held, extended), 'cancelled', 'lost', or
-- 'locked': somebody's transaction holds its row, so it was not extended and may be another's soon; ask again.  Waiting
-- for it would let the leases of all the others lapse.  An explicit heartbeat leaves an event, an automatic one none.
create function {schema}.heartbeat(
  p_worker text,
  p_ids uuid[],
  p_tokens bigint[],
  p_seconds double precision default 30,
  p_explicit boolean default false)
returns table (id uuid, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set enable_hashjoin = on set jit = off set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_held uuid[];
begin
  if (p_seconds > 0 and p_seconds <= 31536000) is not true then
    raise exception using errcode = 'WF002',
      message = format('p_seconds: expected more than 0 and at most a year, got %s',
                       coalesce(p_seconds::text, 'null'));
  end if;
  perform set_config('workflow.transition', case when p_explicit then 'heartbeat' else 'extend' end, true),
          set_config('workflow.actor', p_worker, true),
          set_config('workflow.detail', p_seconds::text, true);
  with extended as (
    update {schema}.workflow_run as run
       -- Not the time at which the call began: it may have waited for a lock on the table.
       set lease_until = greatest(run.lease_until, clock_timestamp() + make_interval(secs => p_seconds))
      from (select * from unnest(p_ids, p_tokens) as named (id, token) order by named.id) as held
     where run.id = any (array(select free.id from {schema}.workflow_run as free
                                where free.id = any (p_ids) and free.leased_by = p_worker
                                  for no key update skip locked))
       and run.id = held.id
       and run.fencing_token = held.token   -- the fence
       and run.leased_by = p_worker         -- a lease that has lapsed but was not expired still counts
    returning run.id)
  select coalesce(array_agg(extended.id), '{}') into v_held from extended;
  perform set_config('workflow.transition', '', true);
  -- A second statement: it sees what became of a row that was locked for the first.
  return query
  select held.id,
         case when run.fencing_token is distinct from held.token then 'lost'
              when held.id = any (v_held) then 'leased'
              when run.leased_by = p_worker then 'locked'
              when run.status = 'cancelled' then 'cancelled'
              else 'lost' end
    from unnest(p_ids, p_tokens) as held (id, token)
    left join {schema}.workflow_run as run on run.id = any (p_ids) and run.id = held.id;
end
$fn$;

-- Record how far an attempt is, as an event; false when the worker does not hold the run any more.
create function {schema}.progress(p_worker text, p_id uuid, p_token bigint, p_progress jsonb)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $fn$
declare
  v_held record;
  v_found boolean;
begin
  if not {schema}.fits(p_progress, 65536) then
    raise exception using errcode = 'WF002',
      message = 'p_progress: expected at most 65536 bytes as text and 100 levels, got more';
  end if;
  perform set_config('workflow.transition', 'progress', true);
  select run.id, run.attempt, run.fencing_token, run.keeps_events into v_held
    from {schema}.workflow_run as run
   where run.id = p_id
     and run.fencing_token = p_token   -- the fence
     and run.leased_by = p_worker
     for share;
  v_found := found;
  if v_held.keeps_events then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    values (v_held.id, 'progress', jsonb_build_object('worker', p_worker, 'attempt', v_held.attempt,
                                                      'token', v_held.fencing_token, 'progress', p_progress));
  end if;
  perform set_config('workflow.transition', '', true);
  return v_found;
end
$fn$;

-- Give runs back untried: the attempt does not count.  Returns the runs that were still held.
create function {schema}.release(p_worker text, p_ids uuid[], p_tokens bigint[])
returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set enable_hashjoin = on set jit = off set plan_cache_mode = force_generic_plan as $fn$
begin
  perform set_config('workflow.transition', 'release', true), set_config('workflow.actor', p_worker, true);
  return query
  update {schema}.workflow_run as run
     set status = 'pending', attempt = run.attempt - 1, leased_by = null, lease_until = null,
         updated_at = clock_timestamp()
    from (select * from unnest(p_ids, p_tokens) as named (id, token) order by named.id) as held
   where run.id = any (p_ids)
     and run.id = held.id
     and run.fencing_token = held.token   -- the fence
     and run.leased_by = p_worker
  returning run.id;
  perform set_config('workflow.transition', '', true);
end
$fn$;

-- Lease up to p_limit due runs to p_worker, which holds p_held already, in one round trip and one commit with the end of
-- those named, as finish ends them.  Rows without an id are notes: refused, which of these were not held any more;
-- next_due_at, when nothing is due.  Of a run next_due_at tells since when it has been due.
--
-- A suspect is given only to a worker that holds nothing, and by itself: it shall execute nothing beside it.  Where
-- all are busy, one claim in twenty brings nothing but is_suspect (id null): hold nothing, then claim again.  By
-- chance, so that those with short runs, who claim often and are soon without any, are asked first.
--
-- p_lanes is for workers that claim often.  They begin with '{}', and a note tells in lanes how to go on.  Given back,
-- with p_look false, a claim looks only there and from there on: under a snapshot that somebody holds, when each
-- look everywhere walks over all that was claimed since, nothing else stays fast.  With p_look true, now and then, it
-- also finds what was committed late, has come back or is of another lane; look_seconds tells what that has cost.
create function {schema}.exchange(
  p_worker text,
  p_ids uuid[],
  p_tokens bigint[],
  p_statuses text[],
  p_results jsonb[],
  p_errors text[],
  p_delays_seconds double precision[],
  p_patterns text[],
  p_limit int,
  p_lease_seconds double precision,
  p_held int default 0,
  p_lanes text default null,
  p_look boolean default true)
returns table (id uuid, type text, payload jsonb, attempt int, max_attempts int, fencing_token bigint,
               created_at timestamptz, is_suspect boolean, next_due_at timestamptz, lanes text,
               look_seconds double precision, refused uuid[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan set datestyle = 'ISO' as $fn$
#variable_conflict use_column
declare
  v_now timestamptz;
  v_done uuid[];
  v_ids uuid[];
  v_known {schema}.lane[] := p_lanes;
  v_lanes {schema}.lane[] := v_known;
  v_next_due_at timestamptz;
  v_look_seconds double precision;
  v_disabled text[];
  v_has_suspect boolean;
  v_suspect uuid;
  v_locked record;   -- assigned, as the next, since a select or a perform costs ten times as much
  v_set text;
begin
  if cardinality(p_ids) > 0 then
    v_done := array(select {schema}.finish(p_worker, p_ids, p_tokens, p_statuses, p_results, p_errors,
                                           p_delays_seconds));
    if cardinality(v_done) < cardinality(p_ids) then
      refused := array(select unnest(p_ids) except select unnest(v_done));
      return next;
      refused := null;
    end if;
  end if;
  if p_limit <= 0 then
    return;
  end if;
  v_now := clock_timestamp();
  if (p_lease_seconds > 0 and p_lease_seconds <= 31536000) is not true then
    raise exception using errcode = 'WF002',
      message = format('p_lease_seconds: expected more than 0 and at most a year, got %s',
                       coalesce(p_lease_seconds::text, 'null'));
  elsif coalesce(octet_length(p_worker), 0) not between 1 and 400 then   -- it is in an index
    raise exception using errcode = 'WF002',
      message = format('p_worker: expected a name of 1 to 400 bytes, got %s', coalesce(octet_length(p_worker), 0));
  elsif p_limit is null or p_limit > 100000 then
    raise exception using errcode = 'WF002',
      message = format('p_limit: expected at most 100000, got %s', coalesce(p_limit::text, 'null'));
  end if;
  -- Together, since what an idle worker's claim costs is its statements: the names and prefixes that operators have disabled
  -- (null: none), and whether there is a suspect, of which there is mostly none.
  select (select array_agg(known.workflow_name) from {schema}.workflow_registry as known where not known.is_enabled),
         p_held = 0 and exists (
           select from {schema}.workflow_run as run
            where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= v_now)
    into v_disabled, v_has_suspect;
  if v_has_suspect then
    v_suspect := {schema}.lock_due_suspect(p_patterns, v_now);
  elsif p_held is distinct from 0 and random() < 0.05 and {schema}.has_suspect_waiting(p_patterns, v_now) then
    is_suspect := true;
    return next;
    return;
  end if;
  if v_suspect is not null then
    v_ids := array[v_suspect];
  elsif not p_look and p_lanes is not null then
    if v_disabled is not null then
      v_lanes := array(select row(lane.type, lane.priority, lane.run_at, lane.id)::{schema}.lane
                         from unnest(v_lanes) with ordinality as lane (type, priority, run_at, id, position)
                        where not {schema}.covers(v_disabled, lane.type)
                        order by lane.position);
    end if;
    v_locked := {schema}.lock_in_lanes(v_lanes, p_limit, v_now);
    v_ids := v_locked.ids;
    v_lanes := v_locked.lanes;
  else
    v_locked := {schema}.lock_due_runs(p_patterns, p_limit, v_now, v_disabled);
    v_ids := v_locked.ids;
    v_lanes := v_locked.lanes;
    v_next_due_at := v_locked.next_due_at;
    v_look_seconds := extract(epoch from clock_timestamp() - v_now);
    -- Where nothing was found, something may come next.
    if cardinality(v_known) > 0 then
      v_lanes := v_lanes || array(
        select row(known.type, known.priority, known.run_at, known.id)::{schema}.lane
          from unnest(v_known) as known
         where not exists (select from unnest(v_lanes) as lane
                            where lane.type = known.type and lane.priority = known.priority)
         limit 16);
    end if;
  end if;
  if p_lanes is not null and v_suspect is null or cardinality(v_ids) = 0 then
    is_suspect := false;
    next_due_at := case when cardinality(v_ids) = 0 then v_next_due_at end;
    if p_lanes is not null then
      lanes := v_lanes::text;
      look_seconds := v_look_seconds;
    end if;
    return next;
    if cardinality(v_ids) = 0 then
      return;
    end if;
  end if;
  v_now := clock_timestamp();   -- the locks may have been long in coming: the lease begins when they are there
  v_set := set_config('workflow.transition', 'claim', true) || set_config('workflow.actor', p_worker, true);
  return query
  with claimed as (
    update {schema}.workflow_run as run
       set status = 'leased', attempt = run.attempt + 1, fencing_token = run.fencing_token + 1,
           leased_by = p_worker, lease_until = v_now + make_interval(secs => p_lease_seconds),
           updated_at = v_now
     where run.id = any (v_ids)   -- locked above: nobody can have changed them since
    returning run.id, run.type, run.payload, run.attempt, run.max_attempts, run.fencing_token,
              run.created_at, run.is_suspect, run.priority, run.run_at)
  select claimed.id, claimed.type::text, claimed.payload, claimed.attempt, claimed.max_attempts,
         claimed.fencing_token, claimed.created_at, claimed.is_suspect,
         greatest(claimed.run_at, claimed.created_at), null::text, null::double precision, null::uuid[]
    from claimed
   order by claimed.priority, claimed.run_at, claimed.id;
  v_set := set_config('workflow.transition', '', true);
end
$fn$;

-- An exchange that ends nothing.
create function {schema}.claim(
  p_worker text,
  p_patterns text[],
  p_limit int default 1,
  p_lease_seconds double precision default 30,
  p_held int default 0,
  p_lanes text default null,
  p_look boolean default true)
returns table (id uuid, type text, payload jsonb, attempt int, max_attempts int, fencing_token bigint,
               created_at timestamptz, is_suspect boolean, next_due_at timestamptz, lanes text,
               look_seconds double precision)
language sql security definer set search_path = pg_catalog, pg_temp as $fn$
  select brought.id, brought.type, brought.payload, brought.attempt, brought.max_attempts, brought.fencing_token,
         brought.created_at, brought.is_suspect, brought.next_due_at, brought.lanes, brought.look_seconds
    from {schema}.exchange(p_worker, '{}', '{}', '{}', null, null, null, p_patterns, p_limit, p_lease_seconds, p_held,
                           p_lanes, p_look) as brought
$fn$;

-- ── expire, cancel, reopen ─────────────────────────────────────────────────────────────────────────

-- Take runs from workers that stopped extending their lease, or that p_dead names as known dead; each comes
-- back to pending at once, or fails when no attempt is left.  Waits for nobody: what is locked comes next time.
--
-- A session may outlive its worker, and claim for it when its runs have been taken already.  p_taken names what earlier
-- calls took of the dead: what of these is leased to them once more nobody has executed, and it is given back.
--
-- Any of the runs that a dead worker held may have killed it.  The first time they are run again like any other, at
-- once: most crashes are not a run's fault.  The second time in a row, or before its last attempt, a run becomes a
-- suspect, which is run alone.
create function {schema}.expire(
  p_dead text[] default '{}', p_limit int default 1000, p_taken uuid[] default '{}')
returns table (id uuid, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_worker text;
  v_has_others boolean;
  v_late uuid[];
  v_tokens bigint[];
begin
  p_dead := array_remove(coalesce(p_dead, '{}'), null);
  for v_worker in
    select distinct run.leased_by
      from {schema}.workflow_run as run
     where run.status = 'leased' and (run.lease_until < v_now or run.leased_by = any (p_dead))
  loop
    if p_taken <> '{}' and v_worker = any (p_dead) then
      select array_agg(late.id), array_agg(late.fencing_token) into v_late, v_tokens
        from (select run.id, run.fencing_token
                from {schema}.workflow_run as run
               where run.status = 'leased' and run.leased_by = v_worker and run.id = any (p_taken)
               limit p_limit
                 for update skip locked) as late;
      return query
      select released, 'pending' from {schema}.release(v_worker, v_late, v_tokens) as released;
    end if;
    v_has_others := 1 < (select count(*) from {schema}.workflow_run as run
                          where run.status = 'leased' and run.leased_by = v_worker);
    perform set_config('workflow.transition', 'expire', true), set_config('workflow.actor', v_worker, true);
    return query
    update {schema}.workflow_run as run
       set status = case when run.attempt < run.max_attempts then 'pending' else 'failed' end,
           finished_at = case when run.attempt >= run.max_attempts then v_now end,
           last_error = case when v_worker = any (p_dead) then 'worker ' || v_worker || ' died'
                             else 'the lease of worker ' || v_worker || ' expired' end
                        || ' during attempt ' || run.attempt,
           crashes = run.crashes + (v_worker = any (p_dead) and v_has_others)::int,
           is_suspect = run.is_suspect
                        or v_worker = any (p_dead) and (run.crashes > 0 or run.attempt + 1 >= run.max_attempts),
           leased_by = null,
           lease_until = null,
           updated_at = v_now
     where run.id = any (array(
             select lapsed.id
               from {schema}.workflow_run as lapsed
              where lapsed.status = 'leased' and lapsed.leased_by = v_worker
                and (lapsed.lease_until < v_now or v_worker = any (p_dead))
              limit p_limit
                for update skip locked))
    returning run.id, run.status;
    perform set_config('workflow.transition', '', true);
  end loop;
end
$fn$;

-- When the next lease lapses, if nobody extends it; null when nothing is leased.
create function {schema}.next_lease_until() returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off as $fn$
  select min(run.lease_until) from {schema}.workflow_run as run where run.status = 'leased'
$fn$;

-- Cancel runs that have not ended.  One row for each that exists: whether this call changed it.  p_operation, an object,
-- says for whom an operation does it: it goes into the events.
create function {schema}.cancel_for(p_ids uuid[], p_reason text, p_operation text)
returns table (id uuid, changed boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set enable_hashjoin = on set jit = off set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_changed uuid[];
begin
  perform {schema}.refuse_count('p_ids', cardinality(p_ids));
  perform set_config('workflow.transition', 'cancel', true),
          set_config('workflow.detail', coalesce(left(p_reason, 8000), ''), true),
          set_config('workflow.operation', p_operation, true);
  with wanted as (
    select run.id from {schema}.workflow_run as run where run.id = any (p_ids) order by run.id for update),
  cancelled as (
    update {schema}.workflow_run as run
       set status = 'cancelled', leased_by = null, lease_until = null, finished_at = v_now, updated_at = v_now
      from wanted
     where run.id = any (p_ids) and run.id = wanted.id and run.status in ('pending', 'leased', 'waiting')
    returning run.id)
  select coalesce(array_agg(cancelled.id), '{}') into v_changed from cancelled;
  perform set_config('workflow.transition', '', true);
  return query
  select run.id, run.id = any (v_changed) from {schema}.workflow_run as run where run.id = any (p_ids);
end
$fn$;

-- Give failed or cancelled runs a new budget of p_attempts and make them due now.  One row for each that
-- exists: whether this call changed it.
create function {schema}.reopen_for(p_ids uuid[], p_attempts int, p_reason text, p_operation text)
returns table (id uuid, changed boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set enable_hashjoin = on set jit = off set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_changed uuid[];
begin
  if p_attempts is null or p_attempts not between 1 and 1000 then
    raise exception using errcode = 'WF002', message = format('p_attempts: expected 1 to 1000, got %s', p_attempts);
  end if;
  perform {schema}.refuse_count('p_ids', cardinality(p_ids));
  perform set_config('workflow.transition', 'reopen', true),
          set_config('workflow.detail', coalesce(left(p_reason, 8000), ''), true),
          set_config('workflow.operation', p_operation, true);
  with wanted as (
    select run.id from {schema}.workflow_run as run where run.id = any (p_ids) order by run.id for update),
  reopened as (
    update {schema}.workflow_run as run
       set status = 'pending', max_attempts = run.attempt + p_attempts, run_at = v_now, result = null,
           finished_at = null, crashes = 0, is_suspect = false, updated_at = v_now
      from wanted
     where run.id = any (p_ids) and run.id = wanted.id and run.status in ('failed', 'cancelled') and run.deleted_at is null
    returning run.id)
  select coalesce(array_agg(reopened.id), '{}') into v_changed from reopened;
  perform set_config('workflow.transition', '', true);
  return query
  select run.id, run.id = any (v_changed) from {schema}.workflow_run as run where run.id = any (p_ids);
end
$fn$;

-- What everybody calls: in one's own name.
create function {schema}.cancel(p_ids uuid[], p_reason text default null)
returns table (id uuid, changed boolean)
language sql security definer set search_path = pg_catalog, pg_temp as $fn$
  select done.id, done.changed from {schema}.cancel_for(p_ids, p_reason, '') as done
$fn$;

create function {schema}.reopen(p_ids uuid[], p_attempts int default 3, p_reason text default null)
returns table (id uuid, changed boolean)
language sql security definer set search_path = pg_catalog, pg_temp as $fn$
  select done.id, done.changed from {schema}.reopen_for(p_ids, p_attempts, p_reason, '') as done
$fn$;

-- ── the registry ───────────────────────────────────────────────────────────────────────────────────

-- Enter the types (or patterns) that a worker handles; what operators set (is_enabled, description) stays.
create function {schema}.register_types(p_names text[], p_runtime text default 'python') returns void
language sql security definer set search_path = pg_catalog, pg_temp as $fn$
  insert into {schema}.workflow_registry as known (workflow_name, runtime)
  select name, p_runtime from unnest(p_names) as name order by name
  on conflict (workflow_name) do update set runtime = excluded.runtime, updated_at = now()
   where known.runtime is distinct from excluded.runtime
$fn$;

-- ── spans ──────────────────────────────────────────────────────────────────────────────────────────

-- Which span each run was submitted in: for workers that trace, after a claim.  Not a column of claim, which would bring
-- it to everybody: who traces asks once for a batch, by the primary key.
create function {schema}.traceparents(p_worker text, p_ids uuid[])
returns table (id uuid, traceparent text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $fn$
begin
  perform {schema}.refuse_count('p_ids', cardinality(p_ids));
  return query
  select run.id, run.traceparent
    from {schema}.workflow_run as run
   where run.id = any (p_ids)
     and run.traceparent is not null
     and run.leased_by = p_worker;   -- of what it holds, and no other
end
$fn$;

-- ── who may call them ──────────────────────────────────────────────────────────────────────────────

-- PostgreSQL lets everybody execute a new function.  These act in the owner's name, so a producer that may only
-- insert could cancel, or claim and read, every run.  The files in grants/ open them; what a plain INSERT or UPDATE
-- needs (uuid7, and what the guards call in the name of whoever writes) stays open.
revoke execute on function
  {schema}.submit, {schema}.submit_many, {schema}.lock_in_lanes, {schema}.lock_due_runs,
  {schema}.lock_due_suspect, {schema}.claim, {schema}.finish,
  {schema}.heartbeat, {schema}.progress, {schema}.release, {schema}.exchange, {schema}.expire,
  {schema}.next_lease_until, {schema}.cancel_for, {schema}.reopen_for, {schema}.cancel, {schema}.reopen,
  {schema}.register_types, {schema}.traceparents
  from public;
