-- What the migrations, which are the truth, make: a dump by PostgreSQL 18, written by `make schema`.

CREATE SCHEMA workflow;

CREATE TYPE workflow.explanation AS (
	reason text,
	says text,
	remedy text,
	facts jsonb
);

CREATE TYPE workflow.lane AS (
	type text COLLATE pg_catalog."C",
	priority integer,
	run_at timestamp with time zone,
	id uuid
);

CREATE FUNCTION workflow.acting() RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select jsonb_strip_nulls(jsonb_build_object(
    'by', session_user, 'on_behalf_of', workflow.on_behalf_of()))
$$;

CREATE FUNCTION workflow.add_key(p_name text, p_role text, p_digest text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  insert into workflow.workflow_api_key (name, role, digest) values (p_name, p_role, p_digest)
  on conflict (name) where revoked_at is null do nothing;
  return found;
end
$$;

CREATE FUNCTION workflow.apply_policy() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  new.keeps_events := false;
  return new;
end
$$;

CREATE FUNCTION workflow.audit_cancel() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if new.keeps_events then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    values (new.id, 'cancelled', workflow.acting() || jsonb_strip_nulls(jsonb_build_object(
      'from', old.status, 'attempt', old.attempt, 'token', old.fencing_token,
      'worker', old.leased_by,
      'reason', case when current_setting('workflow.transition', true) = 'cancel'
                     then nullif(current_setting('workflow.detail'), '') end))
      || case when current_setting('workflow.transition', true) = 'cancel'
              then coalesce(nullif(current_setting('workflow.operation', true), '')::jsonb, '{}')
              else '{}' end);
  end if;
  if old.status = 'leased' then
    perform pg_notify('workflow', format('cancelled %s %s', new.id, old.fencing_token));
  end if;
  return null;
end
$$;

CREATE FUNCTION workflow.audit_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_types text[];
  v_runs bigint;
  v_type text collate "C";
  v_last_type text collate "C";
  v_data jsonb := case when coalesce(current_setting('workflow.on_behalf_of', true), '') = ''
                         then jsonb_build_object('by', session_user) else workflow.acting() end;
begin
  insert into workflow.workflow_event (workflow_id, event_type, data)
  select run.id, 'created', v_data
    from new_runs as run
   where run.keeps_events;
  -- What is counted (0008) tells the types too: a trigger of its own cost twice as much.  A guard has seen to it that
  -- each is pending and shown.  Mostly all are of one type: by groups a lone run takes a server that has been idle a
  -- twelfth more.
  select count(*), min(run.type), max(run.type) into v_runs, v_type, v_last_type from new_runs as run;
  if v_type = v_last_type then
    insert into workflow.workflow_delta (runs, type, to_status, event_type)
    values (v_runs, v_type, 'pending', 'created');
    v_types := array[v_type];
  else
    with counted as (
      insert into workflow.workflow_delta (runs, type, to_status, event_type)
      select count(*), run.type, 'pending', 'created' from new_runs as run group by run.type
      returning type)
    select array_agg(counted.type) into v_types from (select counted.type from counted limit 17) as counted;
  end if;
  if cardinality(v_types) > 0 then   -- also where no event was written
    perform workflow.wake(v_types);
  end if;
  return null;
end
$$;

CREATE FUNCTION workflow.audit_pause() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_transition text := coalesce(current_setting('workflow.transition', true), '');
  v_was_paused boolean := tg_op <> 'INSERT' and not old.is_enabled;
  v_is_paused boolean := tg_op <> 'DELETE' and not new.is_enabled;
  v_is_other boolean := tg_op = 'UPDATE' and new.workflow_name <> old.workflow_name;
begin
  perform set_config('workflow.transition', 'policy', true);
  if v_was_paused and (not v_is_paused or v_is_other) then
    update workflow.workflow_pause as pause
       set resumed_at = clock_timestamp(), resumed_by = session_user,
           resumed_for = workflow.on_behalf_of()
     where pause.pattern = old.workflow_name and pause.resumed_at is null;
    perform workflow.wake(array[case when right(old.workflow_name, 1) = '%' then '%' else old.workflow_name end]);
  end if;
  if v_is_paused and (not v_was_paused or v_is_other) then
    insert into workflow.workflow_pause (pattern, reason)
    values (new.workflow_name, case when v_transition = 'pause' then nullif(current_setting('workflow.detail'), '') end);
  end if;
  perform set_config('workflow.transition', v_transition, true);
  return null;
end
$$;

CREATE FUNCTION workflow.audit_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_transition text := coalesce(current_setting('workflow.transition', true), '');
  v_actor text := current_setting('workflow.actor', true);
begin
  if v_transition = 'claim' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id, 'leased',
           case when run.attempt = first.attempt and run.fencing_token = first.fencing_token then first.data
                else jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token) end
      from (select run.attempt, run.fencing_token,
                   jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token) as data
              from new_runs as run limit 1) as first
     cross join new_runs as run
     where run.keeps_events;
  elsif v_transition = 'finish' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id,
           case run.status when 'pending' then 'retried' else run.status end,
           case
             when run.status = 'succeeded' and run.attempt = first.attempt and run.fencing_token = first.fencing_token then
               first.data
             when run.status = 'succeeded' then
               jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token)
             when run.status = 'failed' then
               jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                                  'error', run.last_error)
             else
               jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                                  'error', run.last_error, 'run_at', run.run_at)
           end
      from (select run.attempt, run.fencing_token,
                   jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token) as data
              from new_runs as run limit 1) as first
     cross join new_runs as run
     where run.keeps_events;
  elsif v_transition = 'heartbeat' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id, 'heartbeat',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                              'seconds', current_setting('workflow.detail')::double precision,
                              'lease_until', run.lease_until)
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'expire' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id, 'expired',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                              'to', run.status, 'error', run.last_error, 'by', session_user)
           || case when run.is_suspect and run.status = 'pending' then '{"suspect": true}' else '{}' end::jsonb
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'release' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id, 'released',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token)
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'reopen' then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    select run.id, 'reopened',
           workflow.acting() || jsonb_strip_nulls(jsonb_build_object(
             'attempt', run.attempt, 'max_attempts', run.max_attempts,
             'reason', nullif(current_setting('workflow.detail'), '')))
           || coalesce(nullif(current_setting('workflow.operation', true), '')::jsonb, '{}')
      from new_runs as run
     where run.keeps_events;
  end if;
  -- Counts (0008): the transition tells what the runs were before.  In a trigger of its own it cost as much again.
  if v_transition = 'claim' then
    insert into workflow.workflow_delta (runs, type, from_status, to_status, event_type)
    select count(*), run.type, 'pending', 'leased', 'leased' from new_runs as run group by run.type;
  elsif v_transition in ('finish', 'expire', 'release') then
    insert into workflow.workflow_delta (runs, type, from_status, to_status, event_type)
    select count(*), run.type, 'leased', run.status,
           case v_transition when 'expire' then 'expired'
                             when 'release' then 'released'
                             else case run.status when 'pending' then 'retried' else run.status end end
      from new_runs as run
     where run.deleted_at is null
     group by run.type, run.status;
  elsif v_transition not in ('heartbeat', 'extend') then   -- those change no status
    -- How many more, or fewer, of each status there are afterwards: a plain UPDATE may be one of a million runs.
    insert into workflow.workflow_delta (runs, type, to_status, event_type)
    select sum(changed.runs) filter (where changed.is_shown), changed.type, changed.status,
           case when changed.status = 'cancelled' and sum(changed.runs) > 0 then 'cancelled' end
      from (select run.type, run.status, run.deleted_at is null as is_shown, count(*) as runs
              from new_runs as run group by 1, 2, 3
            union all
            select run.type, run.status, run.deleted_at is null, - count(*)
              from old_runs as run group by 1, 2, 3) as changed
     group by changed.type, changed.status
    having sum(changed.runs) filter (where changed.is_shown) <> 0;
  end if;
  if v_transition in ('expire', 'release', 'reopen') then
    perform workflow.wake(array(select distinct run.type from new_runs as run
                                 where run.status = 'pending' limit 17));
  end if;
  return null;
end
$$;

CREATE FUNCTION workflow.beat_workers(p_workers text[], p_held integer[]) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  return query
  update workflow.workflow_worker as worker
     set seen_at = clock_timestamp(), held = greatest(0, coalesce(beaten.held, 0))
    from (select * from unnest(p_workers, p_held) as named (id, held) order by named.id) as beaten
   where worker.id = any (p_workers)
     and worker.id = beaten.id
     and worker.stopped_at is null   -- who was known dead does not live again
  returning worker.id::text;
end
$$;

CREATE FUNCTION workflow.bound_error(p_error text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (octet_length(p_error) <= 65536) THEN p_error ELSE (("left"(p_error, 8000) || '
... left out ...
'::text) || "right"(p_error, 8000)) END;

CREATE FUNCTION workflow.cancel(p_ids uuid[], p_reason text DEFAULT NULL::text) RETURNS TABLE(id uuid, changed boolean)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select done.id, done.changed from workflow.cancel_for(p_ids, p_reason, '') as done
$$;

CREATE FUNCTION workflow.cancel_for(p_ids uuid[], p_reason text, p_operation text) RETURNS TABLE(id uuid, changed boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_hashjoin TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_changed uuid[];
begin
  perform workflow.refuse_count('p_ids', cardinality(p_ids));
  perform set_config('workflow.transition', 'cancel', true),
          set_config('workflow.detail', coalesce(left(p_reason, 8000), ''), true),
          set_config('workflow.operation', p_operation, true);
  with wanted as (
    select run.id from workflow.workflow_run as run where run.id = any (p_ids) order by run.id for update),
  cancelled as (
    update workflow.workflow_run as run
       set status = 'cancelled', leased_by = null, lease_until = null, finished_at = v_now, updated_at = v_now
      from wanted
     where run.id = any (p_ids) and run.id = wanted.id and run.status in ('pending', 'leased', 'waiting')
    returning run.id)
  select coalesce(array_agg(cancelled.id), '{}') into v_changed from cancelled;
  perform set_config('workflow.transition', '', true);
  return query
  select run.id, run.id = any (v_changed) from workflow.workflow_run as run where run.id = any (p_ids);
end
$$;

CREATE FUNCTION workflow.carry_operation(p_carrier text, p_limit integer DEFAULT 200, p_looks integer DEFAULT 5000, p_lease_seconds double precision DEFAULT 5) RETURNS TABLE(id uuid, state text, matched bigint, done bigint, changed bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_op workflow.workflow_operation;
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
    from workflow.workflow_operation as operation
   where operation.state = 'running'
   order by operation.requested_at
   limit 1;
  select operation.* into v_op
    from workflow.workflow_operation as operation
   where operation.id = v_op.id and operation.state = 'running'
     and (operation.carried_by = p_carrier or coalesce(operation.carried_until < v_now, true))
     for update skip locked;
  if not found then
    return;
  end if;
  v_pass := coalesce((v_op.cursor ->> 'pass')::int, 0);   -- 0: it counts
  v_in_pass := coalesce((v_op.cursor ->> 'runs')::int, 0);
  select walked.ids, walked.runs, walked.walk into v_ids, v_runs, v_walk
    from workflow.walk_runs(v_op.kind, v_op.filter, v_op.requested_at, coalesce(v_op.cursor -> 'walk', '{}'),
                            case when v_pass > 0 then p_limit end,
                            case when v_pass > 0 then p_looks else 2 * p_looks end) as walked;
  if v_pass > 0 then
    begin
      v_changed := workflow.change_runs(v_op, v_ids);
      if v_changed < cardinality(v_ids) then
        v_left := (select count(*) from workflow.left_of(v_op, v_ids));
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
  update workflow.workflow_operation as operation
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
$$;

CREATE FUNCTION workflow.on_behalf_of() RETURNS text
    LANGUAGE sql STABLE
    RETURN NULLIF("left"(current_setting('workflow.on_behalf_of'::text, true), 200), ''::text);

CREATE FUNCTION workflow.uuid7() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    RETURN uuidv7();

CREATE TABLE workflow.workflow_operation (
    id uuid DEFAULT workflow.uuid7() NOT NULL,
    kind text NOT NULL,
    filter jsonb NOT NULL,
    attempts integer,
    reason text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    matched bigint,
    done bigint DEFAULT 0 NOT NULL,
    changed bigint DEFAULT 0 NOT NULL,
    requested_by text DEFAULT SESSION_USER NOT NULL,
    on_behalf_of text DEFAULT workflow.on_behalf_of(),
    requested_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    stopped_by text,
    error text,
    carried_by text COLLATE pg_catalog."C",
    carried_until timestamp with time zone,
    cursor jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT workflow_operation_kind CHECK (((kind = ANY (ARRAY['cancel'::text, 'reopen'::text])) AND ((kind = 'reopen'::text) = (attempts IS NOT NULL)))),
    CONSTRAINT workflow_operation_state CHECK (((state = ANY (ARRAY['running'::text, 'stopped'::text, 'finished'::text, 'failed'::text])) AND ((state = 'running'::text) = (ended_at IS NULL))))
);

COMMENT ON TABLE workflow.workflow_operation IS 'Changes of all the runs that a filter matches: who asked for what, why, and how far it has come.';

CREATE FUNCTION workflow.change_runs(p_operation workflow.workflow_operation, p_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_name text := jsonb_strip_nulls(jsonb_build_object(
    'operation', p_operation.id, 'by', p_operation.requested_by, 'on_behalf_of', p_operation.on_behalf_of));
  v_ids uuid[] := array(
    select run.id
      from workflow.workflow_run as run
     where run.id in (select one.id from workflow.left_of(p_operation, p_ids) as one)
       and run.status = any (array(select jsonb_array_elements_text(p_operation.filter -> 'status')))
       and run.deleted_at is null
       and (p_operation.kind <> 'reopen' or run.finished_at <= p_operation.requested_at)
     order by run.id
       for update of run skip locked);
begin
  if p_operation.kind = 'cancel' then
    return (select count(*) from workflow.cancel_for(v_ids, p_operation.reason, v_name) as done where done.changed);
  end if;
  return (select count(*) from workflow.reopen_for(v_ids, p_operation.attempts, p_operation.reason, v_name) as done
           where done.changed);
end
$$;

CREATE FUNCTION workflow.check_window(p_window_seconds double precision) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (p_window_seconds between 10 and 2592000) is not true then
    raise exception using errcode = 'WF002',
      message = format('window_seconds: expected 10 to 2592000, which is 30 days, got %s',
                       coalesce(p_window_seconds::text, 'null'));
  end if;
end
$$;

CREATE FUNCTION workflow.claim(p_worker text, p_patterns text[], p_limit integer DEFAULT 1, p_lease_seconds double precision DEFAULT 30, p_held integer DEFAULT 0, p_lanes text DEFAULT NULL::text, p_look boolean DEFAULT true) RETURNS TABLE(id uuid, type text, payload jsonb, attempt integer, max_attempts integer, fencing_token bigint, created_at timestamp with time zone, is_suspect boolean, next_due_at timestamp with time zone, lanes text, look_seconds double precision)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select brought.id, brought.type, brought.payload, brought.attempt, brought.max_attempts, brought.fencing_token,
         brought.created_at, brought.is_suspect, brought.next_due_at, brought.lanes, brought.look_seconds
    from workflow.exchange(p_worker, '{}', '{}', '{}', null, null, null, p_patterns, p_limit, p_lease_seconds, p_held,
                           p_lanes, p_look) as brought
$$;

CREATE FUNCTION workflow.count_deletion() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  insert into workflow.workflow_delta (runs, type, from_status, event_type)
  select count(*), run.type, run.status,
         case when current_setting('workflow.transition', true) = 'finish' then 'succeeded' end
    from old_runs as run
   where run.deleted_at is null
   group by run.type, run.status;
  return null;
end
$$;

CREATE FUNCTION workflow.count_operable(p_kind text, p_patterns text[], p_statuses text[] DEFAULT NULL::text[], p_created_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_walk jsonb DEFAULT '{}'::jsonb, p_looks integer DEFAULT 10000, OUT runs bigint, OUT walk jsonb) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (p_looks > 0) is not true then
    raise exception using errcode = 'WF002', message = format('p_looks: expected 1 or more, got %s', p_looks);
  end if;
  select walked.runs, walked.walk into runs, walk
    from workflow.walk_runs(
      p_kind, workflow.operation_filter(p_kind, p_patterns, p_statuses, p_created_from, p_created_before),
      clock_timestamp(), coalesce(p_walk, '{}'), null, p_looks) as walked;
end
$$;

CREATE FUNCTION workflow.count_prunable(p_ended_before timestamp with time zone, p_patterns text[] DEFAULT NULL::text[], p_statuses text[] DEFAULT NULL::text[], p_from timestamp with time zone DEFAULT '-infinity'::timestamp with time zone, p_looks integer DEFAULT NULL::integer, OUT runs bigint, OUT reached_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
                 select from workflow.workflow_run as parent
                  where parent.id = run.parent_id and parent.finished_at is null)) as is_prunable
      from workflow.workflow_run as run
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
      from workflow.workflow_run as run
     where run.finished_at > v_last and run.finished_at < p_ended_before
     order by run.finished_at
     limit 1);
  select counted.runs into runs
    from workflow.count_prunable(coalesce(reached_at, p_ended_before), p_patterns, p_statuses, v_last) as counted;
end
$$;

CREATE FUNCTION workflow.counts() RETURNS TABLE(type text, status text, runs bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select counted.type, counted.status, sum(counted.runs)::bigint
    from (select known.type, known.status, known.runs from workflow.workflow_count as known
          union all
          select moved.type, moved.status, moved.runs
            from workflow.unfolded() as delta
           cross join lateral (values (delta.type, delta.to_status, delta.runs),
                                      (delta.type, delta.from_status, - delta.runs)) as moved (type, status, runs)
           where moved.status is not null) as counted
   group by counted.type, counted.status
  having sum(counted.runs) <> 0
$$;

CREATE FUNCTION workflow.covers(p_patterns text[], p_type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (EXISTS (SELECT FROM unnest(covers.p_patterns) pattern(pattern) WHERE ((pattern.pattern = covers.p_type) OR (("right"(pattern.pattern, 1) = '%'::text) AND starts_with(covers.p_type, "left"(pattern.pattern, '-1'::integer))))));

CREATE FUNCTION workflow.default_backoff_seconds(p_attempt integer) RETURNS double precision
    LANGUAGE sql PARALLEL SAFE
    RETURN LEAST((21600)::double precision, ((((60.0 * (p_attempt)::numeric) * (p_attempt)::numeric))::double precision * ((0.9)::double precision + ((0.2)::double precision * random()))));

CREATE FUNCTION workflow.delete_succeeded(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[]) RETURNS SETOF uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  v_types text[];
  v_are_all boolean;
  v_deleted uuid[];
  v_with_events uuid[];
begin
  -- A type never changes, so that no lock is needed to read it.
  select array_agg(found.type) filter (where found.is_deleted), bool_and(found.is_deleted) into v_types, v_are_all
    from (select run.type, workflow.is_deleted_on_success(run.type) as is_deleted
            from (select distinct run.type from workflow.workflow_run as run where run.id = any (p_ids)) as run) as found;
  if v_types is null then
    return;
  end if;
  if not v_are_all or exists (select from unnest(p_statuses) as status where status <> 'succeeded') then
    -- The others are written by a second statement; all are locked in the order of their ids before.
    perform from workflow.workflow_run as run
      where run.id = any (p_ids) and run.leased_by = p_worker order by run.id for update;
  end if;
  with deleted as (
    delete from workflow.workflow_run as run
     using (select * from unnest(p_ids, p_tokens, p_statuses) as wanted (id, token, status)
             where wanted.status = 'succeeded'
             order by wanted.id) as done
     where run.id = any (p_ids)
       and run.id = done.id
       and run.fencing_token = done.token   -- the fence: a run claimed again has a higher token
       and run.leased_by = p_worker
       and run.type = any (v_types)
    returning run.id, run.keeps_events)
  select array_agg(deleted.id), array_agg(deleted.id) filter (where deleted.keeps_events) into v_deleted, v_with_events
    from deleted;
  -- A statement of its own, after the lock: what the run was changed by until then has left its events by now.
  if v_with_events is not null then
    delete from workflow.workflow_event where workflow_id = any (v_with_events);
  end if;
  return query select unnest(v_deleted);
end
$$;

CREATE FUNCTION workflow.drop_policy(p_pattern text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return workflow.replace_policy(p_pattern, null, null);
end
$$;

CREATE FUNCTION workflow.end_workers(p_workers text[], p_state text DEFAULT 'stopped'::text) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  if p_state is null or p_state not in ('stopping', 'stopped', 'lost') then
    raise exception using errcode = 'WF002',
      message = format('p_state: expected stopping, stopped or lost, got %s', coalesce(quote_literal(left(p_state, 60)), 'null'));
  end if;
  return query
  update workflow.workflow_worker as worker
     set stopping_at = coalesce(worker.stopping_at, case when p_state <> 'lost' then clock_timestamp() end),
         stopped_at = case when p_state <> 'stopping' then clock_timestamp() end,
         held = case when p_state = 'stopping' then worker.held else 0 end,
         is_lost = p_state = 'lost'
   where worker.id = any (p_workers)
     and worker.stopped_at is null
     and (p_state <> 'stopping' or worker.stopping_at is null)
  returning worker.id::text;
end
$$;

CREATE FUNCTION workflow.ended_runs(p_ids uuid[]) RETURNS TABLE(id uuid, status text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select run.id, run.status
    from workflow.workflow_run as run
   where run.id = any (p_ids) and run.status in ('succeeded', 'failed', 'cancelled')
$$;

CREATE FUNCTION workflow.exchange(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[], p_results jsonb[], p_errors text[], p_delays_seconds double precision[], p_patterns text[], p_limit integer, p_lease_seconds double precision, p_held integer DEFAULT 0, p_lanes text DEFAULT NULL::text, p_look boolean DEFAULT true) RETURNS TABLE(id uuid, type text, payload jsonb, attempt integer, max_attempts integer, fencing_token bigint, created_at timestamp with time zone, is_suspect boolean, next_due_at timestamp with time zone, lanes text, look_seconds double precision, refused uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET "DateStyle" TO 'ISO'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz;
  v_done uuid[];
  v_ids uuid[];
  v_known workflow.lane[] := p_lanes;
  v_lanes workflow.lane[] := v_known;
  v_next_due_at timestamptz;
  v_look_seconds double precision;
  v_disabled text[];
  v_has_suspect boolean;
  v_suspect uuid;
  v_locked record;   -- assigned, as the next, since a select or a perform costs ten times as much
  v_set text;
begin
  if cardinality(p_ids) > 0 then
    v_done := array(select workflow.finish(p_worker, p_ids, p_tokens, p_statuses, p_results, p_errors,
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
  select (select array_agg(known.workflow_name) from workflow.workflow_registry as known where not known.is_enabled),
         p_held = 0 and exists (
           select from workflow.workflow_run as run
            where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= v_now)
    into v_disabled, v_has_suspect;
  if v_has_suspect then
    v_suspect := workflow.lock_due_suspect(p_patterns, v_now);
  elsif p_held is distinct from 0 and random() < 0.05 and workflow.has_suspect_waiting(p_patterns, v_now) then
    is_suspect := true;
    return next;
    return;
  end if;
  if v_suspect is not null then
    v_ids := array[v_suspect];
  elsif not p_look and p_lanes is not null then
    if v_disabled is not null then
      v_lanes := array(select row(lane.type, lane.priority, lane.run_at, lane.id)::workflow.lane
                         from unnest(v_lanes) with ordinality as lane (type, priority, run_at, id, position)
                        where not workflow.covers(v_disabled, lane.type)
                        order by lane.position);
    end if;
    v_locked := workflow.lock_in_lanes(v_lanes, p_limit, v_now);
    v_ids := v_locked.ids;
    v_lanes := v_locked.lanes;
  else
    v_locked := workflow.lock_due_runs(p_patterns, p_limit, v_now, v_disabled);
    v_ids := v_locked.ids;
    v_lanes := v_locked.lanes;
    v_next_due_at := v_locked.next_due_at;
    v_look_seconds := extract(epoch from clock_timestamp() - v_now);
    -- Where nothing was found, something may come next.
    if cardinality(v_known) > 0 then
      v_lanes := v_lanes || array(
        select row(known.type, known.priority, known.run_at, known.id)::workflow.lane
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
    update workflow.workflow_run as run
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
$$;

CREATE FUNCTION workflow.expire(p_dead text[] DEFAULT '{}'::text[], p_limit integer DEFAULT 1000, p_taken uuid[] DEFAULT '{}'::uuid[]) RETURNS TABLE(id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
      from workflow.workflow_run as run
     where run.status = 'leased' and (run.lease_until < v_now or run.leased_by = any (p_dead))
  loop
    if p_taken <> '{}' and v_worker = any (p_dead) then
      select array_agg(late.id), array_agg(late.fencing_token) into v_late, v_tokens
        from (select run.id, run.fencing_token
                from workflow.workflow_run as run
               where run.status = 'leased' and run.leased_by = v_worker and run.id = any (p_taken)
               limit p_limit
                 for update skip locked) as late;
      return query
      select released, 'pending' from workflow.release(v_worker, v_late, v_tokens) as released;
    end if;
    v_has_others := 1 < (select count(*) from workflow.workflow_run as run
                          where run.status = 'leased' and run.leased_by = v_worker);
    perform set_config('workflow.transition', 'expire', true), set_config('workflow.actor', v_worker, true);
    return query
    update workflow.workflow_run as run
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
               from workflow.workflow_run as lapsed
              where lapsed.status = 'leased' and lapsed.leased_by = v_worker
                and (lapsed.lease_until < v_now or v_worker = any (p_dead))
              limit p_limit
                for update skip locked))
    returning run.id, run.status;
    perform set_config('workflow.transition', '', true);
  end loop;
end
$$;

CREATE FUNCTION workflow.few_ids(p_patterns text[], p_statuses text[], p_at_most integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
               from workflow.workflow_run as run
              where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                and run.type >= wanted.low and run.type < wanted.high
              order by run.type, run.priority, run.run_at
              limit p_at_most + 1) as run
       limit p_at_most + 1);
    v_ids := v_ids || array(
      select run.id
        from workflow.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and run.is_suspect
       order by run.run_at
       limit p_at_most + 1);
  end if;
  if 'leased' = any (p_statuses) then
    v_ids := v_ids || array(
      select run.id
        from workflow.workflow_run as run
       where run.status = 'leased'
       order by run.leased_by
       limit p_at_most + 1);
  end if;
  return case when cardinality(v_ids) <= p_at_most then v_ids end;
end
$$;

CREATE FUNCTION workflow.find_held(p_worker text, p_limit integer DEFAULT 200) RETURNS SETOF uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select held.id
    from (select run.id from workflow.workflow_run as run
           where run.status = 'leased' and run.leased_by = p_worker
           limit p_limit) as held
   order by held.id desc
$$;

CREATE FUNCTION workflow.find_key(p_key text) RETURNS SETOF uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select run.id from workflow.workflow_run as run where run.idempotency_key = p_key and run.deleted_at is null
$$;

CREATE FUNCTION workflow.find_runs(p_patterns text[] DEFAULT NULL::text[], p_statuses text[] DEFAULT NULL::text[], p_created_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_before uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 50, p_looks integer DEFAULT 10000, p_look_seconds double precision DEFAULT 0.025, p_payload jsonb DEFAULT NULL::jsonb, OUT ids uuid[], OUT next_before uuid, OUT looked_at bigint, OUT looked_back_to timestamp with time zone) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET seq_page_cost TO '0'
    SET random_page_cost TO '0'
    AS $_$
declare
  c_looks_untimed constant int := case when p_payload is null then 500 else 20 end;
  c_above_all constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  -- The first id that was made later than p_created_before.
  v_later uuid := case when p_looks is not null then workflow.first_id_at(p_created_before + interval '1 ms') end;
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
    v_few := workflow.few_ids(p_patterns, p_statuses, least(1000, p_looks));
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
                             ' from workflow.workflow_run as run where %s%s%s order by run.id desc limit %s)',
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
$_$;

CREATE FUNCTION workflow.finish(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[], p_results jsonb[] DEFAULT NULL::jsonb[], p_errors text[] DEFAULT NULL::text[], p_delays_seconds double precision[] DEFAULT NULL::double precision[]) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_hashjoin TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
                     where not workflow.fits(result, 1048576)) then
    raise exception using errcode = 'WF002',
      message = 'p_results: expected at most 1048576 bytes as text and 100 levels each, got more',
      hint = 'keep large data elsewhere and return a reference to it';
  end if;
  v_set := set_config('workflow.transition', 'finish', true) || set_config('workflow.actor', p_worker, true);
  if exists (select from workflow.workflow_policy as policy
              where policy.applies_until is null and not policy.keeps_succeeded)
  then
    return query select workflow.delete_succeeded(p_worker, p_ids, p_tokens, p_statuses);
    get diagnostics v_deleted = row_count;
    if v_deleted = cardinality(p_ids) then
      v_set := set_config('workflow.transition', '', true);
      return;
    end if;
  end if;
  return query
  update workflow.workflow_run as run
     set status = case when done.status = 'pending' and run.attempt >= run.max_attempts then 'failed'
                       else done.status end,
         -- Attempts that crashes in company took are given back to a run that ends well: it was another's fault.
         attempt = case when done.status = 'succeeded' then run.attempt - run.crashes else run.attempt end,
         crashes = 0,
         is_suspect = false,
         result = done.result,
         last_error = coalesce(workflow.bound_error(done.error), run.last_error),
         run_at = case when done.status = 'pending' and run.attempt < run.max_attempts
                       then v_now + make_interval(secs => least(31536000, greatest(0, coalesce(
                              nullif(done.delay_seconds, 'NaN'),
                              workflow.default_backoff_seconds(run.attempt)))))
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
$$;

CREATE FUNCTION workflow.first_id_at(p_at timestamp with time zone) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case when p_at >= 'epoch' and p_at < '9999-01-01 00:00+00'
              then (lpad(to_hex(trunc(extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
         end
$$;

CREATE FUNCTION workflow.nests_beyond_limit(p_value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select jsonb_path_exists(p_value, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")')
$_$;

CREATE FUNCTION workflow.prints_beyond_limit(p_payload jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_long int := (
    select count(*)
      from (select from jsonb_path_query(p_payload,
              'strict $.** ? (@ >= 1e1000 || @ <= -1e1000 || @ > 0 && @ < 1e-1000 || @ < 0 && @ > -1e-1000)')
             limit 1049) as number);
begin
  return v_long > 1048
         or v_long > 52 and (
              select count(*)
                from (select from jsonb_path_query(p_payload, 'strict $.** ? (@ >= 1e20000 || @ <= -1e20000)')
                       limit 53) as number) > 52;
end
$_$;

CREATE FUNCTION workflow.fits(p_value jsonb, p_bytes_max integer) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (pg_column_size(p_value) <= 800) THEN (octet_length((p_value)::text) <= p_bytes_max) WHEN workflow.nests_beyond_limit(p_value) THEN false WHEN ((pg_column_size(p_value) > 2000) AND workflow.prints_beyond_limit(p_value)) THEN false ELSE (octet_length((p_value)::text) <= p_bytes_max) END;

CREATE FUNCTION workflow.fold(p_limit integer DEFAULT 10000, p_pause_seconds double precision DEFAULT 0) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_now timestamptz := clock_timestamp();
  v_fold workflow.workflow_fold;
  v_server_id bigint := (select server.system_identifier from pg_control_system() as server);
  v_snapshot pg_snapshot;
  v_last xid8;
  v_folded int;
  v_is_partial boolean;
  v_from xid8;
  v_going_on xid8[];
begin
  if p_limit < 1 then
    raise exception using errcode = 'WF002', message = format('p_limit: expected 1 or more, got %s', p_limit);
  end if;
  -- A row lock costs a transaction id and a flush: not where there is nothing to do.
  if v_now < (select fold.folded_at from workflow.workflow_fold as fold) + make_interval(secs => p_pause_seconds) then
    return null;
  elsif not exists (select from workflow.unfolded()) then
    return 0;
  end if;
  select fold.from_xid, fold.open_xids, fold.server_id, fold.forgotten_at into
         v_fold.from_xid, v_fold.open_xids, v_fold.server_id, v_fold.forgotten_at
    from workflow.workflow_fold as fold
     for update skip locked;
  if not found then
    return null;
  end if;
  if v_fold.server_id is distinct from v_server_id then   -- see unfolded
    v_fold.from_xid := '0';
    v_fold.open_xids := '{}';
  end if;

  -- One statement, and so one snapshot: what is summed is deleted, and what the snapshot does not show is left.
  with unfolded as materialized (
    select delta.place, delta.xid
      from ((select delta.ctid as place, delta.xid
               from workflow.workflow_delta as delta
              where delta.xid = any (v_fold.open_xids) and delta.xid < v_fold.from_xid
              order by delta.xid
              limit p_limit)
            union all
            (select delta.ctid, delta.xid
               from workflow.workflow_delta as delta
              where delta.xid >= v_fold.from_xid
              order by delta.xid
              limit p_limit)) as delta
     order by delta.xid
     limit p_limit),
  folded as (
    delete from workflow.workflow_delta as delta
     where delta.ctid = any (array(select unfolded.place from unfolded))
    returning delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type, delta.created_at),
  counted as (
    insert into workflow.workflow_count as known (type, status, runs)
    select moved.type, moved.status, sum(moved.runs)
      from (select folded.type, folded.to_status as status, folded.runs from folded where folded.to_status is not null
            union all
            select folded.type, folded.from_status, - folded.runs from folded where folded.from_status is not null) as moved
     group by moved.type, moved.status
    having sum(moved.runs) <> 0
    on conflict (type, status) do update set runs = known.runs + excluded.runs),
  happened as (
    select folded.type, date_bin('10 seconds', folded.created_at, 'epoch') as at,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'created'), 0) as submitted,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'leased'), 0) as claimed,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'succeeded'), 0) as succeeded,
           coalesce(sum(folded.runs) filter (where folded.event_type in ('failed', 'expired')
                                                   and folded.to_status = 'failed'), 0) as failed,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'retried'), 0) as retried,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'cancelled'), 0) as cancelled,
           coalesce(sum(folded.runs) filter (where folded.event_type = 'expired'), 0) as expired
      from folded
     where folded.event_type is not null
     group by folded.type, date_bin('10 seconds', folded.created_at, 'epoch')),
  rated as (
    insert into workflow.workflow_rate as known
           (step_seconds, at, type, submitted, claimed, succeeded, failed, retried, cancelled, expired)
    select step.seconds, date_bin(make_interval(secs => step.seconds), happened.at, 'epoch'), named.type,
           sum(happened.submitted), sum(happened.claimed), sum(happened.succeeded), sum(happened.failed),
           sum(happened.retried), sum(happened.cancelled), sum(happened.expired)
      from happened
     cross join (values (10, interval '1 hour'), (60, '1 day'), (3600, '30 days')) as step (seconds, kept)
     cross join lateral (values (happened.type), ('')) as named (type)
     where happened.at > v_now - step.kept
     group by 1, 2, 3
    on conflict (step_seconds, at, type) do update
       set submitted = known.submitted + excluded.submitted, claimed = known.claimed + excluded.claimed,
           succeeded = known.succeeded + excluded.succeeded, failed = known.failed + excluded.failed,
           retried = known.retried + excluded.retried, cancelled = known.cancelled + excluded.cancelled,
           expired = known.expired + excluded.expired)
  select (select count(*) from folded),
         (select unfolded.xid from unfolded order by unfolded.xid desc limit 1),
         pg_current_snapshot()
    into v_folded, v_last, v_snapshot;

  -- All before v_from is folded but what is left by these: transactions that go on, this one too, and, where the limit
  -- fell among those that were open at the last fold, the rest of them.
  v_is_partial := v_folded = p_limit;
  v_from := case when v_is_partial then greatest(v_fold.from_xid, v_last) else pg_snapshot_xmax(v_snapshot) end;
  v_going_on := array(select pg_snapshot_xip(v_snapshot)) || pg_current_xact_id();
  update workflow.workflow_fold as fold
     set from_xid = v_from, folded_at = v_now,
         -- What a copy brought along is looked at until all of it is folded: its transactions are not this server's.
         server_id = case when v_is_partial and v_fold.server_id is distinct from v_server_id then v_fold.server_id
                          else v_server_id end,
         open_xids = array(select distinct left_by.xid
                             from unnest(v_going_on || case when v_is_partial then v_fold.open_xids end) as left_by (xid)
                            where left_by.xid < v_from
                              and (left_by.xid = any (v_going_on) or left_by.xid >= v_last));
  if v_now > v_fold.forgotten_at + interval '1 minute' then
    perform workflow.forget_rates(v_fold.forgotten_at, v_now);
  end if;
  return v_folded;
end
$$;

CREATE FUNCTION workflow.forget_rates(p_forgotten_at timestamp with time zone, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  delete from workflow.workflow_rate as rate
   using (values (10, interval '1 hour'), (60, '1 day'), (3600, '30 days')) as step (seconds, kept)
   where rate.step_seconds = step.seconds
     and rate.at >= p_forgotten_at - step.kept - interval '1 hour'
     and rate.at < p_now - step.kept - interval '1 hour';
  delete from workflow.workflow_count as known where known.runs = 0;
  update workflow.workflow_fold as fold set forgotten_at = p_now;
end
$$;

CREATE TABLE workflow.workflow_run (
    id uuid DEFAULT workflow.uuid7() NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    priority integer DEFAULT 100 NOT NULL,
    run_at timestamp with time zone DEFAULT now() NOT NULL,
    idempotency_key text COLLATE pg_catalog."C",
    max_attempts integer DEFAULT 3 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    parent_id uuid,
    deleted_at timestamp with time zone,
    traceparent text COLLATE pg_catalog."C",
    status text DEFAULT 'pending'::text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    fencing_token bigint DEFAULT 0 NOT NULL,
    leased_by text COLLATE pg_catalog."C",
    lease_until timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    last_error text,
    result jsonb,
    crashes integer DEFAULT 0 NOT NULL,
    is_suspect boolean DEFAULT false NOT NULL,
    keeps_events boolean DEFAULT true NOT NULL,
    CONSTRAINT workflow_run_attempts CHECK (((attempt >= 0) AND (attempt <= max_attempts) AND ((status <> 'pending'::text) OR (attempt < max_attempts)))),
    CONSTRAINT workflow_run_finished CHECK (((status = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT workflow_run_lease CHECK ((((status = 'leased'::text) = (leased_by IS NOT NULL)) AND ((leased_by IS NULL) = (lease_until IS NULL)))),
    CONSTRAINT workflow_run_status CHECK ((status = ANY (ARRAY['pending'::text, 'leased'::text, 'waiting'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT workflow_run_traceparent CHECK ((traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'::text))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');

COMMENT ON TABLE workflow.workflow_run IS 'One row is one run: a recorded intent.  Insert (type, payload) to submit; update status to ''cancelled'' to cancel.';

CREATE FUNCTION workflow.get_runs(p_ids uuid[]) RETURNS SETOF workflow.workflow_run
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
begin
  return query execute format('select %s from workflow.workflow_run where id = any ($1)',
                              workflow.readable_columns('workflow.workflow_run'))
    using p_ids;
end
$_$;

CREATE FUNCTION workflow.guard_history() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (tg_op, current_setting('workflow.transition', true)) in (
       ('DELETE', 'prune'), ('DELETE', 'finish'), ('INSERT', 'progress'), ('INSERT', 'policy'), ('UPDATE', 'policy'),
       ('INSERT', 'operation'), ('UPDATE', 'operation'))
     and has_table_privilege(tg_relid, 'TRIGGER WITH GRANT OPTION') then
    return null;
  end if;
  raise exception using errcode = 'WF001',
    message = format('%s: %s is refused; history is only added to, by the changes it records', tg_table_name, tg_op),
    hint = case when tg_table_name = 'workflow_run' then 'set deleted_at to hide a run that nobody executes'
                when tg_table_name = 'workflow_policy' then 'use set_policy or drop_policy'
                when tg_table_name = 'workflow_pause' then 'use pause or resume'
                when tg_table_name = 'workflow_operation' then 'use operate or stop_operation'
                else 'workflow_event is written by the triggers and functions of this schema' end;
end
$$;

CREATE FUNCTION workflow.guard_insert() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  if (new.status is distinct from 'pending' or new.attempt <> 0 or new.fencing_token <> 0 or new.leased_by is not null
        or new.lease_until is not null or new.last_error is not null or new.result is not null
        or new.finished_at is not null or new.deleted_at is not null or new.parent_id is not null
        or new.crashes <> 0 or new.is_suspect or new.keeps_events is not true
        or new.type is null or new.payload is null or new.priority is null or new.run_at is null
        or new.max_attempts is null or new.max_attempts not between 1 and 1000
        or new.run_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        or new.created_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        or new.updated_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        or octet_length(new.idempotency_key) not between 1 and 400
        or length(new.type) > 200 or new.type !~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$'
        -- 101 levels take 812 bytes; of what comes compressed, from another table, the size says nothing.  Written out
        -- and not called: a call costs more than the check.
        or case when pg_column_size(new.payload) <= 800 and pg_column_compression(new.payload) is null
                  then octet_length(new.payload::text) > 1048576
                when jsonb_path_exists(new.payload, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")')
                  then true
                when (pg_column_size(new.payload) > 2000 or pg_column_compression(new.payload) is not null)
                     and workflow.prints_beyond_limit(new.payload)
                  then true
                else octet_length(new.payload::text) > 1048576 end) then
    perform workflow.refuse_values(new);
    raise exception using errcode = 'WF001',
      message = format('a new run cannot begin with status %s, an attempt, a lease, a result, a parent, an end or keeps_events false',
                       coalesce(quote_literal(regexp_replace(left(new.status, 60), '[[:cntrl:]]', '?', 'g')), 'null')),
      hint = 'insert type and payload, and if needed id, priority, run_at, idempotency_key, max_attempts';
  end if;
  return new;
end
$_$;

CREATE FUNCTION workflow.guard_transition() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('workflow.transition', true) <> ''
     and not has_table_privilege(tg_relid, 'TRIGGER WITH GRANT OPTION') then
    raise exception using errcode = 'WF001',
      message = 'workflow.transition is set, but only the functions of this schema may make a transition',
      hint = 'reset workflow.transition and call the function instead';
  end if;
  return null;
end
$$;

CREATE FUNCTION workflow.guard_update() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_cancels boolean := new.status = 'cancelled' and old.status in ('pending', 'leased', 'waiting');
  v_edits boolean := (new.priority, new.run_at, new.payload) is distinct from (old.priority, old.run_at, old.payload);
  v_hides boolean := new.deleted_at is distinct from old.deleted_at;
begin
  -- The trigger's condition knows the owner of when it was made.
  if current_setting('workflow.transition', true) <> ''
     and has_table_privilege(tg_relid, 'TRIGGER WITH GRANT OPTION') then
    return new;
  end if;
  if v_cancels then
    new.leased_by := null;
    new.lease_until := null;
    new.updated_at := clock_timestamp();
    new.finished_at := new.updated_at;
  elsif new.status is distinct from old.status then
    raise exception using errcode = 'WF001',
      message = format('run %s is %s: a plain UPDATE cannot make it %s', old.id, old.status,
                       coalesce(quote_literal(regexp_replace(left(new.status, 60), '[[:cntrl:]]', '?', 'g')),
                                'null')),
      hint = case when new.status = 'pending' then 'use reopen' when new.status = 'cancelled'
                  then 'only a pending, leased or waiting run can be cancelled'
                  else 'only a worker that holds the run can, through finish' end;
  end if;
  if (new.id, new.type, new.idempotency_key, new.attempt, new.max_attempts, new.last_error, new.result,
      new.created_at, new.traceparent, new.fencing_token, new.parent_id, new.crashes, new.is_suspect, new.keeps_events)
     is distinct from
     (old.id, old.type, old.idempotency_key, old.attempt, old.max_attempts, old.last_error, old.result,
      old.created_at, old.traceparent, old.fencing_token, old.parent_id, old.crashes, old.is_suspect, old.keeps_events)
     or not v_cancels and (new.leased_by, new.lease_until, new.finished_at)
        is distinct from (old.leased_by, old.lease_until, old.finished_at) then
    raise exception using errcode = 'WF001',
      message = format('run %s: a plain UPDATE may change only priority, run_at, payload, deleted_at, or cancel', old.id);
  end if;
  if v_edits and old.status <> 'pending' then
    raise exception using errcode = 'WF001',
      message = format('run %s is %s: priority, run_at and payload can be changed only while it is pending',
                       old.id, old.status);
  elsif v_hides and old.status in ('leased', 'waiting') and not v_cancels then
    raise exception using errcode = 'WF001',
      message = format('run %s is %s: cancel it before deleted_at is set', old.id, old.status);
  end if;
  if v_cancels or v_edits or v_hides then
    if not v_cancels then
      new.updated_at := clock_timestamp();
    end if;
    if v_edits or v_hides then   -- but a run that came with an old backup can always be cancelled
      perform workflow.refuse_values(new);
    end if;
    if new.status = 'pending' and (new.run_at < old.run_at or v_hides and new.deleted_at is null) then
      perform workflow.wake(array[new.type::text]);
    end if;
    return new;
  elsif old.status = 'cancelled' then
    return null;   -- most likely cancelled once more: nothing changes
  elsif new.updated_at is distinct from old.updated_at and old.status <> 'pending' then
    raise exception using errcode = 'WF001',
      message = format('run %s is %s: updated_at is set by the database', old.id, old.status);
  end if;
  return old;   -- changes nothing, but counts: an UPDATE that asks for what is there has found its row
end
$$;

CREATE FUNCTION workflow.has_suspect_waiting(p_patterns text[], p_now timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select exists (
           select from workflow.workflow_run as run
            where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= p_now
              and run.updated_at < p_now - interval '10 seconds'
              and exists (
                    select from unnest(p_patterns) as pattern
                     where pattern = run.type or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1)))
              and not exists (
                    select from workflow.workflow_registry as disabled
                     where not disabled.is_enabled
                       and (disabled.workflow_name = run.type
                            or right(disabled.workflow_name, 1) = '%'
                               and starts_with(run.type, left(disabled.workflow_name, -1)))))
         and not exists (
           select from workflow.workflow_run as run where run.status = 'leased' and run.is_suspect)
$$;

CREATE FUNCTION workflow.heartbeat(p_worker text, p_ids uuid[], p_tokens bigint[], p_seconds double precision DEFAULT 30, p_explicit boolean DEFAULT false) RETURNS TABLE(id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_hashjoin TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
    update workflow.workflow_run as run
       -- Not the time at which the call began: it may have waited for a lock on the table.
       set lease_until = greatest(run.lease_until, clock_timestamp() + make_interval(secs => p_seconds))
      from (select * from unnest(p_ids, p_tokens) as named (id, token) order by named.id) as held
     where run.id = any (array(select free.id from workflow.workflow_run as free
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
    left join workflow.workflow_run as run on run.id = any (p_ids) and run.id = held.id;
end
$$;

CREATE FUNCTION workflow.is_behind(p_rows integer DEFAULT 10000) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  return p_rows < (
    select count(*)
      from (select
              from workflow.workflow_delta as delta
             where delta.xid >= (select case when fold.server_id = server.system_identifier then fold.from_xid else '0' end
                                   from workflow.workflow_fold as fold cross join pg_control_system() as server)
             limit p_rows + 1) as unfolded);
end
$$;

CREATE FUNCTION workflow.is_deleted_on_success(p_type text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return coalesce((
    select not policy.keeps_succeeded
      from workflow.workflow_policy as policy
     where policy.applies_until is null
       and (policy.pattern = p_type
            or right(policy.pattern, 1) = '%' and starts_with(p_type, left(policy.pattern, -1)))
     order by right(policy.pattern, 1) = '%', length(policy.pattern) desc
     limit 1), false);
end
$$;

CREATE FUNCTION workflow.left_of(p_operation workflow.workflow_operation, p_ids uuid[]) RETURNS TABLE(id uuid)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
  select run.id
    from workflow.workflow_run as run
   where run.id = any (p_ids)
     and run.status = any (array(select jsonb_array_elements_text(p_operation.filter -> 'status')))
     and not exists (
           select from workflow.workflow_event as event
            where event.workflow_id = run.id and event.event_type in ('cancelled', 'reopened')
              and event.data ->> 'operation' = p_operation.id::text)
$$;

CREATE FUNCTION workflow.line_before(p_run workflow.workflow_run, p_patterns text[], p_at_most integer, OUT same_lane bigint, OUT better_priority bigint, OUT is_exact boolean) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  v_now timestamptz := clock_timestamp();
  v_disabled text[] := (select array_agg(workflow_name) from workflow.workflow_registry where not is_enabled);
  v_looks int := 100;
  v_range record;
  v_lane record;
  v_from text collate "C" := '';
begin
  better_priority := 0;
  select count(*) into same_lane
    from (select from workflow.workflow_run as run
           where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
             and run.type = p_run.type and run.priority = p_run.priority
             and (run.run_at, run.id) < (p_run.run_at, p_run.id)
           order by run.run_at
           limit p_at_most + 1) as run;
  -- As lock_due_runs does: one probe for each lane.  Every character of a type sorts above '!' and below '~'.
  for v_range in
    select case when right(pattern, 1) = '%' then left(pattern, -1) else pattern end collate "C" as low,
           case when right(pattern, 1) = '%' then left(pattern, -1) || '~' else pattern || '!' end collate "C" as high
      from unnest(p_patterns) as pattern order by 1, 2
  loop
    v_from := greatest(v_from, v_range.low);
    loop
      exit when v_looks = 0 or same_lane + better_priority > p_at_most;
      v_looks := v_looks - 1;
      select run.type, run.priority into v_lane
        from workflow.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
         and run.type >= v_from and run.type < v_range.high
       order by run.type, run.priority, run.run_at
       limit 1;
      exit when not found;
      v_from := v_lane.type || '!';
      continue when workflow.covers(v_disabled, v_lane.type);
      while v_lane.priority < p_run.priority and v_looks > 0 and same_lane + better_priority <= p_at_most loop
        better_priority := better_priority + (
          select count(*)
            from (select from workflow.workflow_run as run
                   where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                     and run.type = v_lane.type and run.priority = v_lane.priority and run.run_at <= v_now
                   order by run.run_at
                   limit p_at_most + 1 - same_lane - better_priority) as run);
        v_looks := v_looks - 1;
        select run.type, run.priority into v_lane
          from workflow.workflow_run as run
         where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
           and run.type = v_lane.type and run.priority > v_lane.priority
         order by run.priority, run.run_at
         limit 1;
        exit when not found;
      end loop;
    end loop;
  end loop;
  is_exact := v_looks > 0 and same_lane + better_priority <= p_at_most;
  if same_lane + better_priority > p_at_most then
    same_lane := least(same_lane, p_at_most);
    better_priority := least(better_priority, p_at_most - same_lane);
  end if;
end
$$;

CREATE TABLE workflow.workflow_event (
    id bigint NOT NULL,
    workflow_id uuid NOT NULL,
    event_type text NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE workflow.workflow_event IS 'What happened to each run: one row for every change of status.  Within a run, id is the order.';

CREATE FUNCTION workflow.list_events(p_run_id uuid, p_after bigint DEFAULT 0, p_limit integer DEFAULT 10000) RETURNS SETOF workflow.workflow_event
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $_$
begin
  return query execute format(
      'select %s from workflow.workflow_event where workflow_id = $1 and id > $2 order by workflow_event.id limit $3',
      workflow.readable_columns('workflow.workflow_event'))
    using p_run_id, p_after, p_limit;
end
$_$;

CREATE FUNCTION workflow.list_keys() RETURNS TABLE(name text, role text, digest text, created_at timestamp with time zone, created_by text, revoked_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select key.name::text, key.role, key.digest, key.created_at, key.created_by, key.revoked_at
    from workflow.workflow_api_key as key
   order by key.id
$$;

CREATE FUNCTION workflow.list_operations(p_id uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 50) RETURNS SETOF workflow.workflow_operation
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select operation.*
    from workflow.workflow_operation as operation
   where p_id is null or operation.id = p_id
   order by operation.id desc
   limit p_limit
$$;

CREATE FUNCTION workflow.list_page(p_patterns text[] DEFAULT NULL::text[], p_statuses text[] DEFAULT NULL::text[], p_created_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_before uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 50, p_looks integer DEFAULT 10000, p_look_seconds double precision DEFAULT 0.025, p_payload jsonb DEFAULT NULL::jsonb) RETURNS TABLE(run workflow.workflow_run, next_before uuid, looked_at bigint, looked_back_to timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_ids uuid[];
begin
  select found.ids, found.next_before, found.looked_at, found.looked_back_to
    into v_ids, next_before, looked_at, looked_back_to
    from workflow.find_runs(p_patterns, p_statuses, p_created_from, p_created_before, p_before, p_limit, p_looks,
                            p_look_seconds, p_payload) as found;
  if cardinality(v_ids) = 0 then
    return next;
  end if;
  return query
    select one, list_page.next_before, list_page.looked_at, list_page.looked_back_to
      from workflow.get_runs(v_ids) as one
     order by array_position(v_ids, one.id);
end
$$;

CREATE FUNCTION workflow.list_pauses() RETURNS TABLE(pattern text, reason text, paused_at timestamp with time zone, paused_by text, paused_for text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select known.workflow_name::text, pause.reason, coalesce(pause.paused_at, known.updated_at), pause.paused_by, pause.paused_for
    from workflow.workflow_registry as known
    left join workflow.workflow_pause as pause on pause.pattern = known.workflow_name and pause.resumed_at is null
   where not known.is_enabled
   order by known.workflow_name
$$;

CREATE FUNCTION workflow.list_policies() RETURNS TABLE(pattern text, keeps_events boolean, keeps_succeeded boolean, applies_from timestamp with time zone, set_by text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select policy.pattern::text, policy.keeps_events, policy.keeps_succeeded, policy.applies_from, policy.set_by
    from workflow.workflow_policy as policy
   where policy.applies_until is null
   order by right(policy.pattern, 1) <> '%', length(policy.pattern), policy.pattern
$$;

CREATE FUNCTION workflow.list_runs(p_patterns text[] DEFAULT NULL::text[], p_statuses text[] DEFAULT NULL::text[], p_created_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_before uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 50, p_payload jsonb DEFAULT NULL::jsonb) RETURNS SETOF workflow.workflow_run
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
begin
  return query execute format('select %s from workflow.workflow_run where id = any ($1) order by workflow_run.id desc',
                              workflow.readable_columns('workflow.workflow_run'))
    using (select found.ids
             from workflow.find_runs(p_patterns, p_statuses, p_created_from, p_created_before, p_before, p_limit,
                                     p_looks => null, p_look_seconds => null, p_payload => p_payload) as found);
end
$_$;

CREATE FUNCTION workflow.list_schedules(p_limit integer DEFAULT 1000) RETURNS TABLE(id uuid, type text, schedule text, timezone text, next_run_at timestamp with time zone, last_run_at timestamp with time zone, enabled boolean, priority integer, max_attempts integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select one.id, one.type::text, one.schedule, one.timezone,
         case when one.next_run_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then one.next_run_at end,
         case when one.last_run_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then one.last_run_at end,
         one.enabled, one.priority, one.max_attempts
    from workflow.workflow_schedule as one
   where one.deleted_at is null
   order by one.type, one.id
   limit p_limit
$$;

CREATE FUNCTION workflow.list_workers(p_limit integer DEFAULT 500, p_holds integer DEFAULT 10) RETURNS TABLE(id text, host text, pid integer, runtime text, version text, patterns text[], concurrency integer, beat_seconds double precision, started_at timestamp with time zone, seen_at timestamp with time zone, stopping_at timestamp with time zone, stopped_at timestamp with time zone, state text, held integer, holds jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
  with listed as (
    select worker.*, workflow.worker_state(worker) as state
      from workflow.workflow_worker as worker)
  select listed.id::text, listed.host, listed.pid, listed.runtime, listed.version, listed.patterns, listed.concurrency,
         listed.beat_seconds, listed.started_at, listed.seen_at, listed.stopping_at, listed.stopped_at, listed.state,
         case when held.count < 100 then held.count else greatest(listed.held, 100) end, held.runs
    from (select * from listed
           order by array_position('{running,stopping,lost,stopped}', listed.state), listed.started_at desc, listed.id
           limit p_limit) as listed
   cross join lateral (
         select count(*)::int as count,
                coalesce(jsonb_agg(jsonb_build_object('id', run.id, 'type', run.type, 'attempt', run.attempt,
                                                      'leased_at', run.updated_at, 'lease_until', run.lease_until)
                                   order by run.position) filter (where run.position <= p_holds), '[]') as runs
           from (select few.id, few.type, few.attempt, few.updated_at, few.lease_until,
                        row_number() over (order by few.updated_at, few.id) as position
                   from (select run.id, run.type, run.attempt, run.updated_at, run.lease_until
                           from workflow.workflow_run as run
                          where run.status = 'leased' and run.leased_by = listed.id
                          limit 100) as few) as run) as held
   order by array_position('{running,stopping,lost,stopped}', listed.state), listed.started_at desc, listed.id;
end
$$;

CREATE FUNCTION workflow.lock_due_runs(p_patterns text[], p_limit integer, p_now timestamp with time zone, p_disabled text[], OUT ids uuid[], OUT lanes workflow.lane[], OUT next_due_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
  v_head workflow.lane;
  v_heads workflow.lane[] := '{}';
  v_last timestamptz;
  v_due workflow.lane[];
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
        from workflow.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
         and (run.type, run.priority) >= (v_from, v_best) and run.type < v_before
       order by run.type, run.priority, run.run_at
       limit 1;
      exit when not found;
      v_from := v_head.type || '!';
      v_best := c_best;
      if v_head.type = v_sole then
        v_sole := null;   -- its second
      elsif p_disabled is null or not workflow.covers(p_disabled, v_head.type) then
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
              from workflow.workflow_run as run
             where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
               and run.type = v_head.type and run.priority = v_head.priority
               and run.run_at >= v_head.run_at and run.run_at <= p_now
             order by run.run_at, run.id
             limit p_limit
               for update skip locked) as locked;
    if v_last is not null then
      lanes := array[row(v_head.type, v_head.priority, v_last, ids[cardinality(ids)])::workflow.lane];
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
          v_due := v_due || row(v_head.type, v_head.priority, v_head.run_at - c_moment, c_last)::workflow.lane;
        else
          next_due_at := least(next_due_at, v_head.run_at);
        end if;
        select run.type, run.priority, run.run_at, c_last into v_head
          from workflow.workflow_run as run
         where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
           and run.type = v_head.type and run.priority > v_head.priority
         order by run.priority, run.run_at
         limit 1;
        v_heads := case when found then array[v_head] else '{}'::workflow.lane[] end;
        continue;
      end if;
      select min(head.priority) into v_priority from unnest(v_heads) as head;
      -- Who has waited longest first.  But where a tenth of a batch is more than one run, ten that have many would keep
      -- the others waiting: then by chance.
      select v_due || coalesce(array_agg(row(head.type, head.priority, head.run_at - c_moment, c_last)::workflow.lane
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
        select row(head.type, head.priority, head.run_at, head.id)::workflow.lane
          from unnest(v_heads) as head
         where head.priority > v_priority
         union all
        select row(following.type, following.priority, following.run_at, c_last)::workflow.lane
          from unnest(v_heads) as head
         cross join lateral (
               select run.type, run.priority, run.run_at
                 from workflow.workflow_run as run
                where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                  and run.type = head.type and run.priority > head.priority
                order by run.priority, run.run_at
                limit 1) as following
         where head.priority = v_priority);
    end loop;

    v_locked := workflow.lock_in_lanes(v_due, p_limit - cardinality(ids), p_now);
    ids := ids || v_locked.ids;
    lanes := lanes || v_locked.lanes;
    -- All that was due there is locked by others: the next that they have not.
    if cardinality(ids) = 0 then
      select least(next_due_at, min(later.run_at)) into next_due_at
        from unnest(v_due) as lane
       cross join lateral (
             select run.run_at
               from workflow.workflow_run as run
              where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                and run.type = lane.type and run.priority = lane.priority and run.run_at > p_now
              order by run.run_at
              limit 1) as later;
    end if;
  end loop;
  lanes := lanes[:256];
end
$$;

CREATE FUNCTION workflow.lock_due_suspect(p_patterns text[], p_now timestamp with time zone) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  return (
    select run.id
      from workflow.workflow_run as run
     where run.status = 'pending' and run.deleted_at is null and run.is_suspect and run.run_at <= p_now
       and exists (
             select from unnest(p_patterns) as pattern
              where pattern = run.type or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1)))
       and not exists (
             select from workflow.workflow_registry as disabled
              where not disabled.is_enabled
                and (disabled.workflow_name = run.type
                     or right(disabled.workflow_name, 1) = '%'
                        and starts_with(run.type, left(disabled.workflow_name, -1))))
     order by run.run_at
     limit 1
       for update skip locked);
end
$$;

CREATE FUNCTION workflow.lock_in_lanes(p_lanes workflow.lane[], p_limit integer, p_now timestamp with time zone, OUT ids uuid[], OUT lanes workflow.lane[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_lanes workflow.lane[] := p_lanes;
  v_from int := 1;
  v_to int;
  v_queue workflow.lane[];
  v_lane workflow.lane;
  v_empty workflow.lane[];
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
    v_lanes := array(select row(lane.type, lane.priority, lane.run_at, lane.id)::workflow.lane
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
                from workflow.workflow_run as run
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
$$;

CREATE FUNCTION workflow.look_due() RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(jsonb_agg(to_jsonb(lanes)), '[]')
    from (select lane.type, min(lane.oldest_due_at) as oldest_due_at,
                 case when bool_and(lane.due is not null) then sum(lane.due) end as due,
                 case when bool_and(lane.later is not null) then sum(lane.later) end as later
            from workflow.look_into_lanes() as lane
           group by lane.type) as lanes
$$;

CREATE FUNCTION workflow.look_into_lanes(p_lanes integer DEFAULT 1000, p_looks integer DEFAULT 5000, p_seconds double precision DEFAULT 0.02) RETURNS TABLE(type text, priority integer, oldest_due_at timestamp with time zone, due bigint, later bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_type text collate "C" := '';
  v_priority int := 0;
  v_run_at timestamptz;
  v_due_left int := p_looks;
  v_later_left int := p_looks;
  v_lanes int := 0;
begin
  loop
    select run.type, run.priority, run.run_at into v_type, v_priority, v_run_at
      from workflow.workflow_run as run
     where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
       and (run.type, run.priority) > (v_type, v_priority)
     order by run.type, run.priority, run.run_at
     limit 1;
    exit when not found;
    v_lanes := v_lanes + 1;
    if v_lanes > p_lanes or clock_timestamp() > v_now + make_interval(secs => p_seconds) then
      return query select null::text, null::int, null::timestamptz, null::bigint, null::bigint;
      return;
    end if;
    type := v_type;
    priority := v_priority;
    oldest_due_at := case when v_run_at <= v_now then v_run_at end;
    due := case when v_run_at > v_now then 0 end;
    later := null;
    if v_run_at <= v_now and v_due_left > 0 then
      due := (select count(*)
                from (select from workflow.workflow_run as run
                       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                         and run.type = v_type and run.priority = v_priority
                         and run.run_at >= v_run_at and run.run_at <= v_now
                       order by run.run_at
                       limit v_due_left) as run);
      v_due_left := v_due_left - due;
    end if;
    if v_later_left > 0 then
      later := (select count(*)
                  from (select from workflow.workflow_run as run
                         where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                           and run.type = v_type and run.priority = v_priority and run.run_at > v_now
                         order by run.run_at
                         limit v_later_left) as run);
      v_later_left := v_later_left - later;
    end if;
    if v_due_left = 0 then
      due := null;
    end if;
    if v_later_left = 0 then
      later := null;
    end if;
    return next;
  end loop;
  -- Suspects are in no lane.
  return query
  select run.type::text, null::int, min(run.run_at) filter (where run.run_at <= v_now),
         count(*) filter (where run.run_at <= v_now), count(*) filter (where run.run_at > v_now)
    from (select run.type, run.run_at
            from workflow.workflow_run as run
           where run.status = 'pending' and run.deleted_at is null and run.is_suspect
           order by run.run_at
           limit p_looks) as run
   group by run.type;
end
$$;

CREATE FUNCTION workflow.miscounts() RETURNS TABLE(type text, status text, runs bigint, counted bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  select coalesce(present.type, known.type), coalesce(present.status, known.status),
         coalesce(present.runs, 0), coalesce(known.runs, 0)
    from (select run.type::text, run.status, count(*) as runs
            from workflow.workflow_run as run
           where run.deleted_at is null
           group by run.type, run.status) as present
    full join workflow.counts() as known on known.type = present.type and known.status = present.status
   where coalesce(present.runs, 0) <> coalesce(known.runs, 0)
$$;

CREATE FUNCTION workflow.next_lease_until() RETURNS timestamp with time zone
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
  select min(run.lease_until) from workflow.workflow_run as run where run.status = 'leased'
$$;

CREATE FUNCTION workflow.next_upkeep(OUT lease_until timestamp with time zone, OUT has_operations boolean) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select workflow.next_lease_until(),
         exists (select from workflow.workflow_operation as operation where operation.state = 'running')
$$;

CREATE FUNCTION workflow.open_transactions(p_id uuid) RETURNS TABLE(pid integer, prepared text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_xmax xid := (select run.xmax from workflow.workflow_run as run where run.id = p_id);
  v_xids xid[] := array[v_xmax];
begin
  if v_xmax is null or v_xmax = '0'::xid then
    return;
  end if;
  begin   -- several that share the lock have one number together
    v_xids := v_xids || array(select member.xid from pg_get_multixact_members(v_xmax) as member);
  exception when others then
    null;   -- xmax is not such a number
  end;
  return query
  select distinct held.pid, prepared.gid
    from pg_locks as held
    left join pg_prepared_xacts as prepared on held.pid is null and prepared.transaction = held.transactionid
   where held.locktype = 'transactionid' and held.granted and held.transactionid = any (v_xids);
end
$$;

CREATE FUNCTION workflow.operate(p_kind text, p_patterns text[], p_reason text, p_statuses text[] DEFAULT NULL::text[], p_created_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_attempts integer DEFAULT 3) RETURNS workflow.workflow_operation
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_filter jsonb := workflow.operation_filter(p_kind, p_patterns, p_statuses, p_created_from, p_created_before);
  v_operation workflow.workflow_operation;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception using errcode = 'WF002', message = 'p_reason: expected why, got nothing',
      hint = 'it is kept with the operation and with each run that it changes';
  elsif p_kind = 'reopen' and (p_attempts between 1 and 1000) is not true then
    raise exception using errcode = 'WF002', message = format('p_attempts: expected 1 to 1000, got %s', p_attempts);
  end if;
  perform set_config('workflow.transition', 'operation', true);
  insert into workflow.workflow_operation (kind, filter, attempts, reason)
  values (p_kind, v_filter, case when p_kind = 'reopen' then p_attempts end, left(p_reason, 8000))
  returning * into v_operation;
  perform set_config('workflow.transition', '', true);
  return v_operation;
end
$$;

CREATE FUNCTION workflow.operation_filter(p_kind text, p_patterns text[], p_statuses text[], p_created_from timestamp with time zone, p_created_before timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;

CREATE FUNCTION workflow.pause(p_pattern text, p_reason text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_changed boolean;
begin
  if p_pattern is null or length(p_pattern) > 200 or p_pattern !~ '^([A-Za-z0-9_.-]+%?|%)$' then
    raise exception using errcode = 'WF002',
      message = format('p_pattern: expected a type, or a prefix that ends in %%, got %s',
                       coalesce(quote_literal(regexp_replace(left(p_pattern, 60), '[[:cntrl:]]', '?', 'g')), 'null'));
  end if;
  perform set_config('workflow.transition', 'pause', true),
          set_config('workflow.detail', coalesce(left(p_reason, 8000), ''), true);
  -- The runtime is that of a worker that handles it, if one ever does.
  insert into workflow.workflow_registry as known (workflow_name, runtime, is_enabled)
  values (p_pattern, '', false)
  on conflict (workflow_name) do update set is_enabled = false, updated_at = now() where known.is_enabled;
  v_changed := found;
  perform set_config('workflow.transition', '', true);
  return v_changed;
end
$_$;

CREATE FUNCTION workflow.progress(p_worker text, p_id uuid, p_token bigint, p_progress jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_held record;
  v_found boolean;
begin
  if not workflow.fits(p_progress, 65536) then
    raise exception using errcode = 'WF002',
      message = 'p_progress: expected at most 65536 bytes as text and 100 levels, got more';
  end if;
  perform set_config('workflow.transition', 'progress', true);
  select run.id, run.attempt, run.fencing_token, run.keeps_events into v_held
    from workflow.workflow_run as run
   where run.id = p_id
     and run.fencing_token = p_token   -- the fence
     and run.leased_by = p_worker
     for share;
  v_found := found;
  if v_held.keeps_events then
    insert into workflow.workflow_event (workflow_id, event_type, data)
    values (v_held.id, 'progress', jsonb_build_object('worker', p_worker, 'attempt', v_held.attempt,
                                                      'token', v_held.fencing_token, 'progress', p_progress));
  end if;
  perform set_config('workflow.transition', '', true);
  return v_found;
end
$$;

CREATE FUNCTION workflow.prune(p_ended_before timestamp with time zone, p_patterns text[] DEFAULT NULL::text[], p_statuses text[] DEFAULT NULL::text[], p_limit integer DEFAULT 1000, p_from timestamp with time zone DEFAULT '-infinity'::timestamp with time zone) RETURNS TABLE(pruned bigint, reached_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
      from workflow.workflow_run as run
     where run.finished_at >= coalesce(p_from, '-infinity')
       and run.finished_at < p_ended_before
       and (p_statuses is null or run.status = any (p_statuses))
       and (p_patterns is null or exists (
             select from unnest(p_patterns) as pattern
              where run.type = pattern or right(pattern, 1) = '%' and starts_with(run.type, left(pattern, -1))))
       and not exists (
             select from workflow.workflow_run as parent
              where parent.id = run.parent_id and parent.finished_at is null)
     order by run.finished_at
     limit p_limit
       for update of run skip locked)
  select coalesce(array_agg(ended.id), '{}'), max(ended.finished_at) into v_ids, reached_at from ended;
  -- Statements of their own, after the lock: what a run was changed by until then has left its events by now.
  perform set_config('workflow.transition', 'prune', true);
  delete from workflow.workflow_event where workflow_id = any (v_ids);
  delete from workflow.workflow_run as run where run.id = any (v_ids);
  get diagnostics pruned = row_count;
  perform set_config('workflow.transition', '', true);
  return next;
end
$$;

CREATE FUNCTION workflow.rates_since(p_from timestamp with time zone, p_step_seconds integer, p_by_type boolean) RETURNS TABLE(at timestamp with time zone, type text, submitted bigint, claimed bigint, succeeded bigint, failed bigint, retried bigint, cancelled bigint, expired bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
begin
  return query
  select happened.at, happened.type, sum(happened.submitted)::bigint, sum(happened.claimed)::bigint,
         sum(happened.succeeded)::bigint, sum(happened.failed)::bigint, sum(happened.retried)::bigint,
         sum(happened.cancelled)::bigint, sum(happened.expired)::bigint
    from (select rate.at, rate.type::text, rate.submitted, rate.claimed, rate.succeeded, rate.failed, rate.retried,
                 rate.cancelled, rate.expired
            from workflow.workflow_rate as rate
           where rate.step_seconds = p_step_seconds and rate.at >= p_from and (rate.type <> '') = p_by_type
          union all
          select date_bin(make_interval(secs => p_step_seconds), delta.created_at, 'epoch'),
                 case when p_by_type then delta.type else '' end,
                 case when delta.event_type = 'created' then delta.runs else 0 end,
                 case when delta.event_type = 'leased' then delta.runs else 0 end,
                 case when delta.event_type = 'succeeded' then delta.runs else 0 end,
                 case when delta.event_type in ('failed', 'expired') and delta.to_status = 'failed' then delta.runs else 0 end,
                 case when delta.event_type = 'retried' then delta.runs else 0 end,
                 case when delta.event_type = 'cancelled' then delta.runs else 0 end,
                 case when delta.event_type = 'expired' then delta.runs else 0 end
            from workflow.unfolded() as delta
           where delta.event_type is not null and delta.created_at >= p_from) as happened
   group by happened.at, happened.type;
end
$$;

CREATE FUNCTION workflow.read_stream(p_after bigint, p_lows bigint[] DEFAULT '{}'::bigint[], p_highs bigint[] DEFAULT '{}'::bigint[], p_patterns text[] DEFAULT NULL::text[], p_limit integer DEFAULT 200) RETURNS TABLE(id bigint, run_id uuid, event_type text, data jsonb, created_at timestamp with time zone, type text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $_$
declare
  v_columns text := case when has_column_privilege('workflow.workflow_event', 'data', 'select')
                           then 'event.data' else 'null::jsonb as data' end;
begin
  return query execute format($sql$
    with seen as (
      (select event.id, event.workflow_id, event.event_type, %1$s, event.created_at
         from workflow.workflow_event as event
        where event.id > $1
        order by event.id
        limit $5)
      union all
      (select event.*
         from unnest($2, $3) as gap (low, high)
        cross join lateral (
              select event.id, event.workflow_id, event.event_type, %1$s, event.created_at
                from workflow.workflow_event as event
               where event.id between gap.low and gap.high
               order by event.id
               limit $5) as event)
      order by id
      limit $5),
    known as (
      select seen.*, run.type::text as type,
             $4 is null or exists (
               select from unnest($4) as pattern
                where case when right(pattern, 1) = '%%' then starts_with(run.type, left(pattern, -1))
                           else run.type = pattern end) as is_wanted
        from seen
        left join lateral (select run.type from workflow.workflow_run as run where run.id = seen.workflow_id) as run on true)
    select known.id, case when is_wanted then known.workflow_id end, case when is_wanted then known.event_type end,
           case when is_wanted then known.data end, case when is_wanted then known.created_at end,
           case when is_wanted then known.type end
      from known
     order by known.id
  $sql$, v_columns) using p_after, p_lows, p_highs, p_patterns, p_limit;
end
$_$;

CREATE FUNCTION workflow.readable_columns(p_table regclass) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select string_agg(case when attname in ('payload', 'result', 'last_error', 'data')
                              and not has_column_privilege(attrelid, attnum, 'select')
                         then 'null::' || format_type(atttypid, atttypmod)
                         else quote_ident(attname) end, ', ' order by attnum)
    from pg_attribute
   where attrelid = p_table and attnum > 0 and not attisdropped
$$;

CREATE FUNCTION workflow.recount() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_corrected bigint;
begin
  -- One after the other.  Written, so that one with an older snapshot is refused and does not correct twice.
  update workflow.workflow_fold as fold set recounted_at = clock_timestamp();
  insert into workflow.workflow_delta (runs, type, to_status)
  select miscount.runs - miscount.counted, miscount.type, miscount.status from workflow.miscounts() as miscount;
  get diagnostics v_corrected = row_count;
  return v_corrected;
end
$$;

CREATE FUNCTION workflow.refuse_count(p_name text, p_count bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_count > 100000 then
    raise exception using errcode = 'WF002',
      message = format('%s: expected at most 100000 in one call, got %s', p_name, p_count);
  end if;
end
$$;

CREATE FUNCTION workflow.refuse_delays(p_delays_seconds double precision[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if exists (select from unnest(p_delays_seconds) as delay where delay not between 0 and 3155760000) then
    raise exception using errcode = 'WF002', message = 'delay_seconds: expected 0 to 3155760000, which is 100 years';
  end if;
end
$$;

CREATE FUNCTION workflow.refuse_values(run workflow.workflow_run) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_bytes bigint := case when not workflow.prints_beyond_limit(run.payload) then octet_length(run.payload::text) end;
begin
  if run.type is null or run.payload is null or run.priority is null or run.run_at is null
     or run.max_attempts is null then
    raise exception using errcode = 'WF002',
      message = format('%s: expected a value, got null',
                       case when run.type is null then 'type' when run.payload is null then 'payload'
                            when run.priority is null then 'priority' when run.run_at is null then 'run_at'
                            else 'max_attempts' end);
  elsif length(run.type) > 200 or run.type !~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$' then
    raise exception using errcode = 'WF002',
      message = format('type: expected words of A-Z a-z 0-9 _ - joined by dots, at most 200 characters, got %s',
                       quote_literal(regexp_replace(left(run.type, 60), '[[:cntrl:]]', '?', 'g')));
  elsif v_bytes is null or v_bytes > 1048576 then
    raise exception using errcode = 'WF002',
      message = format('payload: expected at most 1048576 bytes as text, got %s',
                       coalesce(v_bytes::text, 'numbers that print as more')),
      hint = 'keep large data elsewhere and put a reference to it into the payload';
  elsif workflow.nests_beyond_limit(run.payload) then
    raise exception using errcode = 'WF002', message = 'payload: expected at most 100 levels, got more';
  elsif run.idempotency_key is not null and octet_length(run.idempotency_key) not between 1 and 400 then
    raise exception using errcode = 'WF002',
      message = format('idempotency_key: expected 1 to 400 bytes, got %s', octet_length(run.idempotency_key));
  elsif run.max_attempts not between 1 and 1000 then
    raise exception using errcode = 'WF002',
      message = format('max_attempts: expected 1 to 1000, got %s', run.max_attempts);
  elsif run.run_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then
    raise exception using errcode = 'WF002',
      message = format('run_at: expected a finite time before the year 10000, got %s', run.run_at);
  -- Nothing depends on these, but one that a client's language cannot hold would break every page that lists it.
  elsif run.created_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        or run.updated_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        or run.deleted_at not between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then
    raise exception using errcode = 'WF002',
      message = 'created_at, updated_at, deleted_at: expected finite times before the year 10000';
  end if;
end
$_$;

CREATE FUNCTION workflow.register_types(p_names text[], p_runtime text DEFAULT 'python'::text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  insert into workflow.workflow_registry as known (workflow_name, runtime)
  select name, p_runtime from unnest(p_names) as name order by name
  on conflict (workflow_name) do update set runtime = excluded.runtime, updated_at = now()
   where known.runtime is distinct from excluded.runtime
$$;

CREATE FUNCTION workflow.register_worker(p_worker text, p_patterns text[], p_concurrency integer, p_host text DEFAULT ''::text, p_pid integer DEFAULT NULL::integer, p_runtime text DEFAULT 'python'::text, p_version text DEFAULT NULL::text, p_beat_seconds double precision DEFAULT 10) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $_$
declare
  v_now timestamptz := clock_timestamp();
begin
  if coalesce(octet_length(p_worker), 0) not between 1 and 400 then
    raise exception using errcode = 'WF002',
      message = format('p_worker: expected a name of 1 to 400 bytes, got %s', coalesce(octet_length(p_worker), 0));
  elsif (p_concurrency > 0) is not true then
    raise exception using errcode = 'WF002',
      message = format('p_concurrency: expected 1 or more, got %s', coalesce(p_concurrency::text, 'null'));
  elsif (p_beat_seconds > 0 and p_beat_seconds <= 86400) is not true then
    raise exception using errcode = 'WF002',
      message = format('p_beat_seconds: expected more than 0 and at most a day, got %s',
                       coalesce(p_beat_seconds::text, 'null'));
  elsif cardinality(p_patterns) not between 1 and 10000
        or exists (select from unnest(p_patterns) as pattern
                    where (length(pattern) <= 200 and pattern ~ '^([A-Za-z0-9_.-]+%?|%)$') is not true) then
    raise exception using errcode = 'WF002',
      message = 'p_patterns: expected 1 to 10000 types, or prefixes that end in %';
  end if;
  delete from workflow.workflow_worker as worker
   where worker.id = any (array(
           select gone.id
             from workflow.workflow_worker as gone
            where greatest(gone.seen_at, gone.stopped_at) < v_now - interval '1 day'
               or gone.id in (select ended.id from workflow.workflow_worker as ended
                               where ended.stopped_at is not null
                               order by ended.stopped_at desc offset 1000)
              for update skip locked));
  insert into workflow.workflow_worker as known
         (id, host, pid, runtime, version, patterns, concurrency, beat_seconds, started_at, seen_at)
  values (p_worker, left(coalesce(p_host, ''), 255), p_pid, left(coalesce(p_runtime, ''), 100), left(p_version, 100),
          p_patterns, p_concurrency, p_beat_seconds, v_now, v_now)
  on conflict (id) do update
     set host = excluded.host, pid = excluded.pid, runtime = excluded.runtime, version = excluded.version,
         patterns = excluded.patterns, concurrency = excluded.concurrency, beat_seconds = excluded.beat_seconds,
         started_at = case when known.stopped_at is null then known.started_at else v_now end,
         seen_at = v_now,
         stopping_at = case when known.stopped_at is null then known.stopping_at end,
         stopped_at = null,
         is_lost = false;
end
$_$;

CREATE FUNCTION workflow.release(p_worker text, p_ids uuid[], p_tokens bigint[]) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_hashjoin TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  perform set_config('workflow.transition', 'release', true), set_config('workflow.actor', p_worker, true);
  return query
  update workflow.workflow_run as run
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
$$;

CREATE FUNCTION workflow.reopen(p_ids uuid[], p_attempts integer DEFAULT 3, p_reason text DEFAULT NULL::text) RETURNS TABLE(id uuid, changed boolean)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select done.id, done.changed from workflow.reopen_for(p_ids, p_attempts, p_reason, '') as done
$$;

CREATE FUNCTION workflow.reopen_for(p_ids uuid[], p_attempts integer, p_reason text, p_operation text) RETURNS TABLE(id uuid, changed boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_hashjoin TO 'on'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_changed uuid[];
begin
  if p_attempts is null or p_attempts not between 1 and 1000 then
    raise exception using errcode = 'WF002', message = format('p_attempts: expected 1 to 1000, got %s', p_attempts);
  end if;
  perform workflow.refuse_count('p_ids', cardinality(p_ids));
  perform set_config('workflow.transition', 'reopen', true),
          set_config('workflow.detail', coalesce(left(p_reason, 8000), ''), true),
          set_config('workflow.operation', p_operation, true);
  with wanted as (
    select run.id from workflow.workflow_run as run where run.id = any (p_ids) order by run.id for update),
  reopened as (
    update workflow.workflow_run as run
       set status = 'pending', max_attempts = run.attempt + p_attempts, run_at = v_now, result = null,
           finished_at = null, crashes = 0, is_suspect = false, updated_at = v_now
      from wanted
     where run.id = any (p_ids) and run.id = wanted.id and run.status in ('failed', 'cancelled') and run.deleted_at is null
    returning run.id)
  select coalesce(array_agg(reopened.id), '{}') into v_changed from reopened;
  perform set_config('workflow.transition', '', true);
  return query
  select run.id, run.id = any (v_changed) from workflow.workflow_run as run where run.id = any (p_ids);
end
$$;

CREATE FUNCTION workflow.replace_policy(p_pattern text, p_keeps_events boolean, p_keeps_succeeded boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $_$
declare
  v_now timestamptz;
  v_present workflow.workflow_policy;
  v_has_eventless boolean;
begin
  if p_pattern is null or length(p_pattern) > 200 or p_pattern !~ '^([A-Za-z0-9_.-]+%?|%)$' then
    raise exception using errcode = 'WF002',
      message = format('p_pattern: expected a type, or a prefix that ends in %%, got %s',
                       coalesce(quote_literal(regexp_replace(left(p_pattern, 60), '[[:cntrl:]]', '?', 'g')), 'null'));
  end if;
  begin
    lock table workflow.workflow_policy in share row exclusive mode;   -- one after the other; readers pass
  exception when lock_not_available then
    raise exception using errcode = 'WF001',
      message = 'the policy was not changed: a transaction that has changed policies is still open; try again when it has ended';
  end;
  v_now := clock_timestamp();
  select policy.pattern, policy.keeps_events, policy.keeps_succeeded into
         v_present.pattern, v_present.keeps_events, v_present.keeps_succeeded
    from workflow.workflow_policy as policy
   where policy.pattern = p_pattern and policy.applies_until is null;
  if (v_present.keeps_events, v_present.keeps_succeeded) is not distinct from (p_keeps_events, p_keeps_succeeded) then
    return false;
  end if;
  v_has_eventless := exists (
    select from workflow.workflow_policy as policy where policy.applies_until is null and not policy.keeps_events);
  perform set_config('workflow.transition', 'policy', true);
  update workflow.workflow_policy as policy
     set applies_until = greatest(v_now, policy.applies_from), ended_by = session_user
   where policy.pattern = p_pattern and policy.applies_until is null;
  if p_keeps_events is not null then
    insert into workflow.workflow_policy (pattern, keeps_events, keeps_succeeded, applies_from)
    values (p_pattern, p_keeps_events, p_keeps_succeeded, v_now);
  end if;
  perform set_config('workflow.transition', '', true);
  if v_present.keeps_events is distinct from p_keeps_events and (v_has_eventless or p_keeps_events is false) then
    perform workflow.write_policies();
  end if;
  return true;
end
$_$;

CREATE FUNCTION workflow.resume(p_pattern text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_changed boolean;
begin
  update workflow.workflow_registry as known
     set is_enabled = true, updated_at = now()
   where known.workflow_name = p_pattern and not known.is_enabled;
  v_changed := found;
  delete from workflow.workflow_registry as known
   where known.workflow_name = p_pattern and known.is_enabled and known.runtime = '' and known.description is null;
  return v_changed;
end
$$;

CREATE FUNCTION workflow.revoke_key(p_name text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  update workflow.workflow_api_key
     set revoked_at = clock_timestamp(), revoked_by = session_user
   where name = p_name and revoked_at is null;
  return found;
end
$$;

CREATE FUNCTION workflow.sample_ended(p_window_seconds double precision, p_runs integer DEFAULT 500) RETURNS TABLE(type text, wait_seconds double precision, run_seconds double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'on'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_from timestamptz := v_now - make_interval(secs => p_window_seconds);
  v_parts int := 50;
  v_ids uuid[];
begin
  v_ids := array(
    select run.id
      from workflow.workflow_run as run
     where run.finished_at >= v_from and run.finished_at is not null
     order by run.finished_at desc
     limit p_runs);
  if cardinality(v_ids) = p_runs then
    v_ids := array(
      select run.id
        from generate_series(0, v_parts - 1) as part
       cross join lateral (
             select run.id
               from workflow.workflow_run as run
              where run.finished_at <= v_now - part * make_interval(secs => p_window_seconds / v_parts)
                and run.finished_at > v_now - (part + 1) * make_interval(secs => p_window_seconds / v_parts)
                and run.finished_at is not null
              order by run.finished_at desc
              limit p_runs / v_parts) as run);
  end if;
  return query
  select run.type::text,
         case when run.fencing_token = 1
              then greatest(0, extract(epoch from claimed.at - greatest(run.run_at, run.created_at))::double precision) end,
         greatest(0, extract(epoch from run.finished_at - claimed.at)::double precision)
    from unnest(v_ids) as wanted (id)
   cross join lateral (
         select run.type, run.run_at, run.created_at, run.finished_at, run.fencing_token
           from workflow.workflow_run as run
          where run.id = wanted.id and run.status in ('succeeded', 'failed') and run.deleted_at is null
          limit 1) as run
   cross join lateral (
         -- The last claim: not far from the end, unless there were many heartbeats.
         select event.created_at as at
           from (select event.event_type, event.created_at, event.id
                   from workflow.workflow_event as event
                  where event.workflow_id = wanted.id
                  order by event.id desc
                  limit 20) as event
          where event.event_type = 'leased'
          order by event.id desc
          limit 1) as claimed;
end
$$;

CREATE FUNCTION workflow.say_seconds(p_seconds double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (p_seconds < (0.95)::double precision) THEN ((round(((p_seconds * (1000)::double precision))::numeric))::text || ' ms'::text) WHEN (p_seconds < (9.95)::double precision) THEN ((round((p_seconds)::numeric, 1))::text || ' s'::text) WHEN (p_seconds < (60)::double precision) THEN ((floor(p_seconds))::text || ' s'::text) WHEN (p_seconds < (3600)::double precision) THEN ((((floor((p_seconds / (60)::double precision)))::text || ' min '::text) || (floor(((p_seconds)::numeric % (60)::numeric)))::text) || ' s'::text) WHEN (p_seconds < (86400)::double precision) THEN ((((floor((p_seconds / (3600)::double precision)))::text || ' h '::text) || (floor((((p_seconds)::numeric % (3600)::numeric) / (60)::numeric)))::text) || ' min'::text) ELSE ((((floor((p_seconds / (86400)::double precision)))::text || ' d '::text) || (floor((((p_seconds)::numeric % (86400)::numeric) / (3600)::numeric)))::text) || ' h'::text) END;

CREATE FUNCTION workflow.say_ago(p_at timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    RETURN (workflow.say_seconds((GREATEST((0)::numeric, EXTRACT(epoch FROM (clock_timestamp() - p_at))))::double precision) || ' ago'::text);

CREATE FUNCTION workflow.say_count(p_count bigint, p_what text, p_is_exact boolean DEFAULT true) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((((CASE WHEN p_is_exact THEN ''::text ELSE 'more than '::text END || TRIM(BOTH FROM to_char(p_count, '999,999,999,999'::text))) || ' '::text) || p_what) || CASE WHEN (p_count = 1) THEN ''::text ELSE 's'::text END);

CREATE FUNCTION workflow.say_error(p_error text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN "left"(regexp_replace(split_part(ltrim(p_error, '
'::text), '
'::text, 1), '[[:cntrl:]]'::text, ' '::text, 'g'::text), 200);

CREATE FUNCTION workflow.set_policy(p_pattern text, p_keeps_events boolean DEFAULT true, p_keeps_succeeded boolean DEFAULT true) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_keeps_events is null or p_keeps_succeeded is null then
    raise exception using errcode = 'WF002', message = 'p_keeps_events, p_keeps_succeeded: expected true or false, got null';
  end if;
  return workflow.replace_policy(p_pattern, p_keeps_events, p_keeps_succeeded);
end
$$;

CREATE FUNCTION workflow.stats(p_window_seconds double precision DEFAULT 300, p_due jsonb DEFAULT NULL::jsonb, OUT runs jsonb, OUT rates jsonb, OUT oldest_due_seconds double precision, OUT due bigint, OUT due_is_exact boolean, OUT step_seconds integer, OUT series jsonb, OUT at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_from timestamptz;
begin
  perform workflow.check_window(p_window_seconds);
  at := clock_timestamp();
  if workflow.is_behind() then
    return;
  end if;
  select jsonb_object_agg(named.status, coalesce(counted.runs, 0)) into runs
    from unnest('{pending,leased,waiting,succeeded,failed,cancelled}'::text[]) as named (status)
    left join (select counts.status, sum(counts.runs) as runs from workflow.counts() group by counts.status) as counted
           on counted.status = named.status;
  step_seconds := case when p_window_seconds <= 3600 then 10 when p_window_seconds <= 21600 then 60 else 3600 end;
  v_from := date_bin(make_interval(secs => step_seconds), at - make_interval(secs => p_window_seconds), 'epoch');
  with happened as materialized (
    select since.at, since.submitted, since.claimed, since.succeeded, since.failed, since.retried, since.cancelled,
           since.expired
      from workflow.rates_since(v_from, step_seconds, false) as since),
  point as (
    select step.at, coalesce(happened.submitted, 0) as submitted, coalesce(happened.claimed, 0) as claimed,
           coalesce(happened.succeeded, 0) as succeeded, coalesce(happened.failed, 0) as failed,
           coalesce(happened.retried, 0) as retried, coalesce(happened.cancelled, 0) as cancelled,
           coalesce(happened.expired, 0) as expired
      from generate_series(v_from, stats.at, make_interval(secs => step_seconds)) as step (at)
      left join happened on happened.at = step.at)
  select jsonb_agg(to_jsonb(point) order by point.at),
         (select jsonb_object_agg(summed.key, summed.runs / extract(epoch from stats.at - v_from)::double precision)
            from (select single.key, sum(single.value::bigint)::double precision as runs
                    from point as inner_point
                   cross join lateral jsonb_each_text(to_jsonb(inner_point) - 'at') as single
                   group by single.key) as summed)
    into series, rates
    from point;
  select extract(epoch from stats.at - min(lane.oldest_due_at)),
         case when bool_or(lane.type is null) then null
              when bool_and(lane.later is not null) then greatest(0, (runs ->> 'pending')::bigint - sum(lane.later))
              when bool_and(lane.due is not null) then sum(lane.due) end,
         true
    into oldest_due_seconds, due, due_is_exact
    from jsonb_to_recordset(coalesce(p_due, workflow.look_due()))
         as lane (type text, oldest_due_at timestamptz, due bigint, later bigint);
  if (runs ->> 'pending')::bigint = 0 then
    due := 0;
    oldest_due_seconds := null;
  end if;
  due_is_exact := due is not null;
end
$$;

CREATE FUNCTION workflow.stop_operation(p_id uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_is_running boolean;
begin
  -- Waits for the chunk that is being carried out.
  select operation.state = 'running' into v_is_running
    from workflow.workflow_operation as operation where operation.id = p_id for update;
  if v_is_running then
    perform set_config('workflow.transition', 'operation', true);
    update workflow.workflow_operation as operation
       set state = 'stopped', ended_at = clock_timestamp(), carried_by = null, carried_until = null,
           stopped_by = coalesce(workflow.on_behalf_of(), session_user)
     where operation.id = p_id;
    perform set_config('workflow.transition', '', true);
  end if;
  return v_is_running;
end
$$;

CREATE FUNCTION workflow.stream_place(OUT last_id bigint, OUT xmin bigint, OUT xmax bigint) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(pg_sequence_last_value(pg_get_serial_sequence('workflow.workflow_event', 'id')::regclass), 0),
         pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint
$$;

CREATE FUNCTION workflow.submit(p_type text, p_payload jsonb DEFAULT '{}'::jsonb, p_idempotency_key text DEFAULT NULL::text, p_priority integer DEFAULT 100, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_delay_seconds double precision DEFAULT 0, p_max_attempts integer DEFAULT 3, p_traceparent text DEFAULT NULL::text) RETURNS TABLE(id uuid, created boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
  if p_delay_seconds <> 0 then
    perform workflow.refuse_delays(array[p_delay_seconds]);
  end if;
  if p_idempotency_key is null then
    insert into workflow.workflow_run (type, payload, priority, run_at, max_attempts, traceparent)
    values (p_type, p_payload, coalesce(p_priority, 100),
            coalesce(p_run_at, now()) + make_interval(secs => coalesce(p_delay_seconds, 0)),
            coalesce(p_max_attempts, 3), p_traceparent)
    returning workflow_run.id into id;
    created := true;
    return next;
    return;
  end if;
  loop
    insert into workflow.workflow_run (type, payload, idempotency_key, priority, run_at, max_attempts, traceparent)
    values (p_type, p_payload, p_idempotency_key, coalesce(p_priority, 100),
            coalesce(p_run_at, now()) + make_interval(secs => coalesce(p_delay_seconds, 0)),
            coalesce(p_max_attempts, 3), p_traceparent)
    on conflict (idempotency_key) do nothing
    returning workflow_run.id into id;
    created := found;
    if not found then
      select run.id into id from workflow.workflow_run as run where run.idempotency_key = p_idempotency_key;
    end if;
    exit when found;
    -- The run that had the key has been pruned in between: the key is free again.
  end loop;
  return next;
end
$$;

CREATE FUNCTION workflow.submit_many(p_types text[], p_payloads jsonb[], p_idempotency_keys text[], p_priorities integer[], p_run_ats timestamp with time zone[], p_delays_seconds double precision[], p_max_attempts integer[], p_traceparent text DEFAULT NULL::text) RETURNS TABLE(id uuid, created boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  v_ids uuid[] := array(select workflow.uuid7() from generate_series(1, cardinality(p_types)));
  v_created uuid[];
  v_are_new boolean[];
  v_position int;
  v_again record;
begin
  perform workflow.refuse_count('p_types', cardinality(p_types)), workflow.refuse_delays(p_delays_seconds);
  if cardinality(p_payloads) is distinct from cardinality(p_types) then
    raise exception using errcode = 'WF002', message = 'p_types, p_payloads: expected the same number of each';
  end if;
  -- Without keys nothing can exist already, and nobody waits for anybody: a plain insert is a tenth cheaper.
  if (select bool_and(key is null) from unnest(p_idempotency_keys) as key) is not false then
    insert into workflow.workflow_run (id, type, payload, priority, run_at, max_attempts, traceparent)
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
    insert into workflow.workflow_run (id, type, payload, idempotency_key, priority, run_at, max_attempts, traceparent)
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
                       from workflow.workflow_run as existing
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
      from workflow.submit(p_types[v_position], p_payloads[v_position], p_idempotency_keys[v_position],
                           p_priorities[v_position], p_run_ats[v_position], p_delays_seconds[v_position],
                           p_max_attempts[v_position], p_traceparent);
    v_ids[v_position] := v_again.id;
    v_are_new[v_position] := v_again.created;
  end loop;
  return query select answer.id, answer.created from unnest(v_ids, v_are_new) as answer (id, created);
end
$$;

CREATE FUNCTION workflow.traceparents(p_worker text, p_ids uuid[]) RETURNS TABLE(id uuid, traceparent text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  perform workflow.refuse_count('p_ids', cardinality(p_ids));
  return query
  select run.id, run.traceparent
    from workflow.workflow_run as run
   where run.id = any (p_ids)
     and run.traceparent is not null
     and run.leased_by = p_worker;   -- of what it holds, and no other
end
$$;

CREATE FUNCTION workflow.types(p_window_seconds double precision DEFAULT 300, p_due jsonb DEFAULT NULL::jsonb) RETURNS TABLE(type text, runs jsonb, rates jsonb, oldest_due_seconds double precision, is_enabled boolean, disabled_by text, handled_by text, runtime text, description text, wait jsonb, run jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'on'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_step int := case when p_window_seconds <= 600 then 10 when p_window_seconds <= 7200 then 60 else 3600 end;
  v_from timestamptz;
  v_seconds double precision;
begin
  perform workflow.check_window(p_window_seconds);
  if workflow.is_behind() then
    return next;
    return;
  end if;
  v_from := date_bin(make_interval(secs => v_step), v_now - make_interval(secs => p_window_seconds), 'epoch');
  v_seconds := extract(epoch from v_now - v_from);
  return query
  with counted as (
    select counts.type, jsonb_object_agg(counts.status, counts.runs) as runs
      from workflow.counts() group by counts.type),
  rated as (
    select since.type,
           jsonb_build_object(
             'submitted', sum(since.submitted) / v_seconds, 'claimed', sum(since.claimed) / v_seconds,
             'succeeded', sum(since.succeeded) / v_seconds, 'failed', sum(since.failed) / v_seconds,
             'retried', sum(since.retried) / v_seconds, 'cancelled', sum(since.cancelled) / v_seconds,
             'expired', sum(since.expired) / v_seconds) as rates
      from workflow.rates_since(v_from, v_step, true) as since group by since.type),
  due as (
    select lane.type, lane.oldest_due_at
      from jsonb_to_recordset(coalesce(p_due, workflow.look_due())) as lane (type text, oldest_due_at timestamptz)
     where lane.type is not null),
  sampled as (
    select sample.type,
           jsonb_build_object('count', count(sample.wait_seconds), 'seconds',
             percentile_cont('{0.5,0.95,0.99}'::double precision[]) within group (order by sample.wait_seconds)) as wait,
           jsonb_build_object('count', count(sample.run_seconds), 'seconds',
             percentile_cont('{0.5,0.95,0.99}'::double precision[]) within group (order by sample.run_seconds)) as run
      from workflow.sample_ended(p_window_seconds) as sample group by sample.type),
  named as (
    select counted.type from counted
     union
    select rated.type from rated
     union
    select known.workflow_name::text from workflow.workflow_registry as known
     where right(known.workflow_name, 1) <> '%')
  select named.type, coalesce(counted.runs, '{}'), coalesce(rated.rates, '{}'),
         extract(epoch from v_now - due.oldest_due_at)::double precision,
         disabled.workflow_name is null, disabled.workflow_name::text, handler.workflow_name::text, handler.runtime,
         coalesce(registered.description, handler.description), sampled.wait, sampled.run
    from named
    left join counted on counted.type = named.type
    left join rated on rated.type = named.type
    left join due on due.type = named.type and counted.runs ? 'pending'
    left join sampled on sampled.type = named.type
    left join workflow.workflow_registry as registered on registered.workflow_name = named.type
    left join lateral (
         select known.workflow_name
           from workflow.workflow_registry as known
          where not known.is_enabled
            and (known.workflow_name = named.type
                 or right(known.workflow_name, 1) = '%' and starts_with(named.type, left(known.workflow_name, -1)))
          order by right(known.workflow_name, 1) = '%', length(known.workflow_name) desc
          limit 1) as disabled on true
    left join lateral (
         select handlers.workflow_name, handlers.runtime, handlers.description
           from (select registered.workflow_name, registered.runtime, registered.description
                  where registered.runtime <> ''
                  union all
                 select known.workflow_name, known.runtime, known.description
                   from workflow.workflow_registry as known
                  where right(known.workflow_name, 1) = '%' and known.runtime <> ''
                    and starts_with(named.type, left(known.workflow_name, -1))) as handlers
          order by right(handlers.workflow_name, 1) = '%', length(handlers.workflow_name) desc
          limit 1) as handler on true
   order by named.type;
end
$$;

CREATE TABLE workflow.workflow_delta (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    runs integer NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    from_status text,
    to_status text,
    event_type text
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE workflow.workflow_delta IS 'So many runs of a type changed their status in one statement: what is not yet in workflow_count.';

CREATE FUNCTION workflow.unfolded() RETURNS SETOF workflow.workflow_delta
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  v_from xid8;
  v_open xid8[];
begin
  select case when fold.server_id = server.system_identifier then fold.from_xid else '0' end, fold.open_xids
    into v_from, v_open
    from workflow.workflow_fold as fold cross join pg_control_system() as server;
  return query
  select delta.xid, delta.created_at, delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type
    from workflow.workflow_delta as delta
   where delta.xid >= v_from;
  return query
  select delta.xid, delta.created_at, delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type
    from workflow.workflow_delta as delta
   where delta.xid = any (v_open) and delta.xid < v_from;
end
$$;

CREATE FUNCTION workflow.verify(p_slack_seconds double precision DEFAULT 5) RETURNS TABLE(law text, run_id uuid, found text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET work_mem TO '64MB'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
begin
  -- What an event makes of its run must follow from what the one before it made.
  return query
  with changed as (
    select event.workflow_id, event.id, event.event_type,
           case event.event_type
             when 'created' then coalesce(event.data ->> 'to', 'pending')
             when 'suspended' then coalesce(event.data ->> 'to', 'waiting')
             when 'expired' then event.data ->> 'to'
             when 'woken' then 'pending'
             when 'retried' then 'pending'
             when 'released' then 'pending'
             when 'reopened' then 'pending'
             else event.event_type
           end as status
      from workflow.workflow_event as event
     where event.event_type in ('created', 'leased', 'succeeded', 'failed', 'retried', 'released', 'suspended',
                                'expired', 'woken', 'cancelled', 'reopened')),
  step as (
    select changed.*,
           lag(changed.status) over run as before,
           lag(changed.event_type) over run as before_type
      from changed
    window run as (partition by changed.workflow_id order by changed.id))
  select 'events form one unbroken path', step.workflow_id,
         format('event %s, %s, follows %s', step.id, step.event_type, coalesce(step.before_type, 'nothing'))
    from step
   where case step.event_type
           when 'created' then step.before_type is not null or step.status not in ('pending', 'waiting')
           when 'leased' then step.before is distinct from 'pending'
           when 'woken' then step.before is distinct from 'waiting'
           when 'reopened' then coalesce(step.before not in ('failed', 'cancelled'), true)
           when 'cancelled' then coalesce(step.before not in ('pending', 'leased', 'waiting'), true)
           when 'failed' then coalesce(step.before not in ('leased', 'waiting'), true)
           when 'suspended' then step.before is distinct from 'leased' or step.status not in ('pending', 'waiting')
           when 'expired' then step.before is distinct from 'leased'
                               or coalesce(step.status not in ('pending', 'failed'), true)
           else step.before is distinct from 'leased'
         end;

  return query
  with latest as (
    select distinct on (event.workflow_id) event.workflow_id, event.event_type,
           case event.event_type
             when 'created' then coalesce(event.data ->> 'to', 'pending')
             when 'suspended' then coalesce(event.data ->> 'to', 'waiting')
             when 'expired' then event.data ->> 'to'
             when 'woken' then 'pending'
             when 'retried' then 'pending'
             when 'released' then 'pending'
             when 'reopened' then 'pending'
             else event.event_type
           end as status
      from workflow.workflow_event as event
     where event.event_type in ('created', 'leased', 'succeeded', 'failed', 'retried', 'released', 'suspended',
                                'expired', 'woken', 'cancelled', 'reopened')
     order by event.workflow_id, event.id desc)
  select 'the last event tells the present status', run.id,
         format('the run is %s, its last event is %s', run.status, coalesce(latest.event_type, 'missing'))
    from workflow.workflow_run as run
    left join latest on latest.workflow_id = run.id
   where latest.status is distinct from run.status and run.keeps_events;

  -- Those that keep no events are exempt from what is asked of events, and from nothing else.
  return query
  select 'only a policy lets a run keep no events', run.id, format('no policy for type %s ever said so', run.type)
    from workflow.workflow_run as run
   where not run.keeps_events
     and not exists (
           select from workflow.workflow_policy as policy
            where not policy.keeps_events
              and (policy.pattern = run.type
                   or right(policy.pattern, 1) = '%' and starts_with(run.type, left(policy.pattern, -1))));

  return query
  select 'a run that keeps no events has none', run.id, format('it has %s', count(*))
    from workflow.workflow_run as run
    join workflow.workflow_event as event on event.workflow_id = run.id
   where not run.keeps_events
   group by run.id;

  return query
  select 'every event belongs to a run', event.workflow_id,
         format('%s events, but no run', count(*))
    from workflow.workflow_event as event
   where not exists (select from workflow.workflow_run as run where run.id = event.workflow_id)
   group by event.workflow_id;

  return query
  with claims as (
    select event.workflow_id, count(*) as number
      from workflow.workflow_event as event
     where event.event_type = 'leased'
     group by event.workflow_id)
  select 'the fencing token is the number of claims', run.id,
         format('the token is %s, claims are %s', run.fencing_token, coalesce(claims.number, 0))
    from workflow.workflow_run as run
    left join claims on claims.workflow_id = run.id
   where run.fencing_token <> coalesce(claims.number, 0) and run.keeps_events;

  -- Tokens are compared as text: what is no number is a violation, not an error.
  return query
  with claimed as (
    select event.workflow_id, event.id, event.event_type, event.data ->> 'token' as token,
           count(*) filter (where event.event_type = 'leased') over (
             partition by event.workflow_id order by event.id) as claims
      from workflow.workflow_event as event)
  select 'who acted on a lease held its token', claimed.workflow_id,
         format('event %s, %s, names token %s, the lease has %s', claimed.id, claimed.event_type,
                coalesce(claimed.token, 'none'), claimed.claims)
    from claimed
   where claimed.event_type in ('leased', 'succeeded', 'failed', 'retried', 'released', 'suspended', 'expired',
                                'cancelled', 'heartbeat', 'progress')
     and claimed.token is distinct from claimed.claims::text;

  return query
  with noted as (
    select event.workflow_id, event.id, event.event_type,
           (select change.event_type
              from workflow.workflow_event as change
             where change.workflow_id = event.workflow_id and change.id < event.id
               and change.event_type not in ('heartbeat', 'progress')
             order by change.id desc
             limit 1) as before_type
      from workflow.workflow_event as event
     where event.event_type in ('heartbeat', 'progress'))
  select 'only a leased run has heartbeats and progress', noted.workflow_id,
         format('event %s, %s, follows %s', noted.id, noted.event_type, coalesce(noted.before_type, 'nothing'))
    from noted
   where coalesce(noted.before_type in ('created', 'succeeded', 'failed', 'retried', 'released', 'suspended',
                                        'expired', 'woken', 'cancelled', 'reopened'), true);

  return query
  select 'leased if and only if it has a holder and an end', run.id,
         format('the run is %s, leased_by %s, lease_until %s', run.status, coalesce(run.leased_by, 'null'),
                coalesce(run.lease_until::text, 'null'))
    from workflow.workflow_run as run
   where (run.status = 'leased') <> (run.leased_by is not null)
      or (run.status = 'leased') <> (run.lease_until is not null);

  return query
  select 'ended if and only if it has finished_at', run.id,
         format('the run is %s, finished_at %s', run.status, coalesce(run.finished_at::text, 'null'))
    from workflow.workflow_run as run
   where (run.status in ('succeeded', 'failed', 'cancelled')) <> (run.finished_at is not null);

  return query
  select 'a lapsed lease is expired in time', run.id,
         format('the lease of %s lapsed at %s', run.leased_by, run.lease_until)
    from workflow.workflow_run as run
   where run.status = 'leased' and run.lease_until < clock_timestamp() - make_interval(secs => p_slack_seconds);

  return query
  select 'one run for each idempotency key', run.id,
         format('key %s has more than one run', quote_literal(left(run.idempotency_key, 60)))
    from workflow.workflow_run as run
   where run.idempotency_key in (
           select idempotency_key from workflow.workflow_run where idempotency_key is not null
            group by idempotency_key having count(*) > 1);

  return query
  select 'attempts stay within their budget and their claims', run.id,
         format('attempt %s of %s, after %s claims', run.attempt, run.max_attempts, run.fencing_token)
    from workflow.workflow_run as run
   where run.attempt < 0 or run.attempt > run.max_attempts or run.attempt > run.fencing_token
      or run.status = 'pending' and run.attempt >= run.max_attempts
      or run.status = 'leased' and run.attempt < 1;

  return query
  select 'what is counted is what is there', null::uuid,
         format('%s %s runs of type %s were counted, there are %s', miscount.counted, miscount.status, miscount.type,
                miscount.runs)
    from workflow.miscounts() as miscount;
end
$$;

CREATE FUNCTION workflow.wake(p_types text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if not pg_try_advisory_xact_lock_shared(hashtextextended('workflow.hungry', 0)) then
    perform pg_notify('workflow', 'wake ' || case when cardinality(p_types) > 16 then '%'
                                                  else array_to_string(p_types, ' ') end);
  end if;
end
$$;

CREATE FUNCTION workflow.walk_runs(p_kind text, p_filter jsonb, p_asked_at timestamp with time zone, p_walk jsonb, p_limit integer, p_looks integer, OUT ids uuid[], OUT runs integer, OUT walk jsonb) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET seq_page_cost TO '0'
    SET random_page_cost TO '0'
    AS $_$
declare
  v_patterns text[] := array(select jsonb_array_elements_text(p_filter -> 'pattern'));
  v_statuses text[] := array(select jsonb_array_elements_text(p_filter -> 'status'));
  v_from timestamptz := p_filter ->> 'created_from';
  v_before timestamptz := p_filter ->> 'created_before';
  v_asked uuid := workflow.first_id_at(p_asked_at);
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
                    ' from workflow.workflow_run as run where %s%s order by %s limit %s',
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
$_$;

CREATE FUNCTION workflow.why(p_id uuid, p_shows_contents boolean DEFAULT true) RETURNS SETOF workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_run workflow.workflow_run;
  v_answer workflow.explanation;
begin
  select * into v_run from workflow.get_runs(array[p_id]);
  if not found then
    return;
  elsif not p_shows_contents then
    v_run.last_error := null;
  end if;
  v_answer := case
    when v_run.finished_at is not null then workflow.why_ended(v_run, p_shows_contents)
    when v_run.status = 'leased' then workflow.why_leased(v_run)
    when v_run.status = 'pending' then workflow.why_pending(v_run)
    else row('waiting', format('it has been waiting for %s', workflow.say_seconds(
                          greatest(0, extract(epoch from clock_timestamp() - v_run.updated_at))::double precision)),
             format('wf run cancel %s ends it', v_run.id), jsonb_build_object('since', v_run.updated_at))::workflow.explanation end;
  v_answer.facts := jsonb_build_object('status', v_run.status, 'type', v_run.type) || v_answer.facts;
  return next v_answer;
end
$$;

CREATE FUNCTION workflow.why_ended(p_run workflow.workflow_run, p_shows_contents boolean) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_is_used_up boolean := p_run.status = 'failed' and p_run.attempt >= p_run.max_attempts;
  v_cancel jsonb;
  v_canceller text;
  v_answer workflow.explanation;
begin
  if p_run.status = 'cancelled' and p_shows_contents
     and has_column_privilege('workflow.workflow_event', 'data', 'select') then
    select event.data into v_cancel
      from workflow.workflow_event as event
     where event.workflow_id = p_run.id and event.event_type = 'cancelled'
     order by event.id desc
     limit 1;
    v_canceller := coalesce(v_cancel ->> 'on_behalf_of', v_cancel ->> 'by');
  end if;
  v_answer.reason := case when v_is_used_up then 'attempts_used_up' else 'ended' end;
  v_answer.says := format('it %s %s%s%s',
    case when p_run.status = 'cancelled' then 'was cancelled' else p_run.status end,
    workflow.say_ago(p_run.finished_at),
    case when p_run.status = 'cancelled' then coalesce(' by ' || workflow.say_error(v_canceller), '')
         else format(', with attempt %s of %s', p_run.attempt, p_run.max_attempts) end,
    coalesce(': ' || workflow.say_error(case when p_run.status = 'failed' then p_run.last_error
                                             else v_cancel ->> 'reason' end), ''));
  v_answer.remedy := case
    when p_run.status = 'succeeded' then 'nothing to do; to do it again, submit another run'
    when p_run.deleted_at is not null then
      format('update workflow.workflow_run set deleted_at = null where id = ''%s''; then wf run reopen %s', p_run.id, p_run.id)
    else format('wf run reopen %s', p_run.id) end;
  v_answer.facts := jsonb_build_object(
    'status', p_run.status, 'finished_at', p_run.finished_at, 'attempt', p_run.attempt,
    'max_attempts', p_run.max_attempts, 'last_error', p_run.last_error, 'cancelled_by', v_canceller,
    'cancel_reason', v_cancel -> 'reason', 'hidden_at', p_run.deleted_at);
  return v_answer;
end
$$;

CREATE FUNCTION workflow.why_in_line(p_run workflow.workflow_run) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  c_counted_at_most constant int := 10000;
  c_looked_into_at_most constant int := 20;
  v_due_seconds double precision := greatest(0, extract(epoch from clock_timestamp() - p_run.run_at));
  v_workers record;
  v_places bigint;
  v_held bigint;
  v_idle bigint;
  v_line record;
  v_suspects_before bigint;
  v_before bigint;
  v_who text;
  v_answer workflow.explanation;
begin
  select count(*) as count, array_agg(worker.id order by worker.held - worker.concurrency, worker.id) as ids
    into v_workers
    from workflow.workflow_worker as worker
   where worker.stopped_at is null and workflow.worker_state(worker) = 'running'
     and workflow.covers(worker.patterns, p_run.type);
  -- What they hold: counted for those that had most room when they were seen, as last said for the others.
  select sum(worker.concurrency), sum(counted.held), count(*) filter (where counted.held = 0)
    into v_places, v_held, v_idle
    from unnest(v_workers.ids) with ordinality as named (id, position)
    join workflow.workflow_worker as worker on worker.id = named.id
   cross join lateral (
         select case when named.position > c_looked_into_at_most or worker.concurrency > 1000 then worker.held
                     else (select count(*)::int
                             from (select from workflow.workflow_run as run
                                    where run.status = 'leased' and run.leased_by = named.id
                                    limit 1000) as run) end as held) as counted;
  v_who := workflow.say_count(v_workers.count, 'worker');
  v_answer.facts := jsonb_build_object(
    'run_at', p_run.run_at, 'priority', p_run.priority, 'workers', v_workers.count, 'places', v_places,
    'places_taken', v_held, 'attempt', p_run.attempt, 'max_attempts', p_run.max_attempts);

  if p_run.is_suspect then
    select count(*) into v_suspects_before
      from (select from workflow.workflow_run as run
             where run.status = 'pending' and run.deleted_at is null and run.is_suspect
               and (run.run_at, run.id) < (p_run.run_at, p_run.id)
             limit c_counted_at_most) as run;
    v_answer.reason := 'suspect';
    v_answer.says := format(
      'its last attempts ended with the death of their worker, so it is run alone: it waits for a worker that holds nothing;'
      ' %s for its type, %s of them without any run now%s',
      v_who, v_idle,
      case when v_suspects_before > 0 then format(', and %s before it', workflow.say_count(v_suspects_before, 'suspect')) else '' end);
    v_answer.remedy := case when v_idle > 0 then 'nothing to do: one of them takes it; if it kills that one too, cancel it'
                            else 'start another worker, or wait: within seconds one of them empties itself for it' end;
    v_answer.facts := v_answer.facts || jsonb_build_object(
      'crashes', p_run.crashes, 'last_error', p_run.last_error, 'workers_idle', v_idle, 'suspects_before', v_suspects_before);
    return v_answer;
  end if;

  select * into v_line
    from workflow.line_before(
           p_run,
           array(select distinct pattern
                   from workflow.workflow_worker as worker, unnest(worker.patterns) as pattern
                  where worker.id = any (v_workers.ids)
                  union select p_run.type),
           c_counted_at_most);
  v_before := v_line.same_lane + v_line.better_priority;
  v_answer.facts := v_answer.facts || jsonb_build_object(
    'before', v_before, 'before_in_its_lane', v_line.same_lane, 'before_of_better_priority', v_line.better_priority,
    'before_is_exact', v_line.is_exact, 'due_seconds', v_due_seconds);
  if v_workers.count = 0 then
    v_answer.reason := 'next';
    v_answer.says := format('worker %s holds runs of its type, but has not entered itself, so that its places are not known; %s before it',
      workflow.worker_not_entered(p_run.type), workflow.say_count(v_before, 'due run', v_line.is_exact));
    v_answer.remedy := 'wait; let that worker call register_worker and beat_workers: see the SQL contract';
  elsif v_before >= v_places - v_held or not v_line.is_exact then
    v_answer.reason := 'workers_busy';
    v_answer.says := format('%s for its type at %s, %s taken; %s before it%s',
      workflow.say_count(v_places, 'place'), v_who, case when v_held >= v_places then 'all' else v_held::text end,
      workflow.say_count(v_before, 'due run', v_line.is_exact) || case when v_before = 1 then ' comes' else ' come' end,
      case when v_line.better_priority > 0 then format(', %s of them of a better priority', v_line.better_priority) else '' end);
    v_answer.remedy :=
      'wait, or raise --processes or --concurrency of wf worker, or start workers on more hosts; a lower priority comes first';
  else
    v_answer.reason := 'next';
    v_answer.says := format('it has been due for %s, and %s with %s %s about to take it%s',
      workflow.say_seconds(v_due_seconds), v_who, workflow.say_count(v_places - v_held, 'free place'),
      case when v_workers.count = 1 then 'is' else 'are' end,
      case when v_before > 0 then format('; %s before it', workflow.say_count(v_before, 'due run')) else '' end);
    v_answer.remedy := case when v_due_seconds < 15 then 'nothing to do'
                            else 'look at the log of worker ' || v_workers.ids[1] || ': its claims may fail' end;
    v_answer.facts := v_answer.facts || jsonb_build_object('worker', v_workers.ids[1]);
  end if;
  return v_answer;
end
$$;

CREATE FUNCTION workflow.why_leased(p_run workflow.workflow_run) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_left double precision := extract(epoch from p_run.lease_until - clock_timestamp());
  v_worker workflow.workflow_worker;
  v_state text;
  v_is_anybody_alive boolean;
  v_answer workflow.explanation;
begin
  select worker.* into v_worker from workflow.workflow_worker as worker where worker.id = p_run.leased_by;
  v_state := case when found then workflow.worker_state(v_worker) end;
  v_answer.facts := jsonb_build_object(
    'worker', p_run.leased_by, 'worker_state', v_state, 'worker_seen_at', v_worker.seen_at,
    'leased_at', p_run.updated_at, 'lease_until', p_run.lease_until, 'attempt', p_run.attempt,
    'max_attempts', p_run.max_attempts, 'fencing_token', p_run.fencing_token, 'is_suspect', p_run.is_suspect);
  if v_left < 0 then
    v_is_anybody_alive := exists (select from workflow.workflow_worker as worker
                                   where worker.stopped_at is null and workflow.worker_state(worker) = 'running');
    v_answer.reason := 'lapsed';
    v_answer.says := format('the lease of worker %s lapsed %s, and nobody has expired it yet',
                            p_run.leased_by, workflow.say_ago(p_run.lease_until));
    v_answer.remedy := case when v_is_anybody_alive then 'wait: any worker that runs expires it within five seconds'
                            else 'start a worker: wf worker MODULE:WORKER; any one expires it, of whatever type' end;
    return v_answer;
  end if;
  v_answer.reason := 'running';
  v_answer.says := format('worker %s has had it for %s, attempt %s of %s; its lease holds for %s more%s',
    p_run.leased_by, workflow.say_seconds(greatest(0, extract(epoch from clock_timestamp() - p_run.updated_at))::double precision),
    p_run.attempt, p_run.max_attempts, workflow.say_seconds(v_left),
    case when v_state = 'lost' then format('; that worker was last seen %s', workflow.say_ago(v_worker.seen_at)) else '' end);
  v_answer.remedy := case when v_state = 'lost' then 'wait: when its lease ends, another worker takes it'
                          else format('nothing to do; wf run cancel %s stops it', p_run.id) end;
  return v_answer;
end
$$;

CREATE FUNCTION workflow.why_locked(p_id uuid) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
declare
  v_open record;
  v_is_old boolean := false;
  v_answer workflow.explanation;
begin
  for v_look in 1..2 loop
    select open.pid, open.prepared, session.usename, session.xact_start, session.state into v_open
      from workflow.open_transactions(p_id) as open
      left join pg_stat_activity as session on session.pid = open.pid
     order by session.xact_start nulls last
     limit 1;
    if not found then
      return null;
    end if;
    v_is_old := v_open.prepared is not null or v_open.pid = pg_backend_pid()
                or v_open.xact_start < clock_timestamp() - interval '1 second';
    exit when v_is_old;
    -- The session of another role does not tell since when: it is looked at again.
    perform pg_sleep(0.05) where v_look = 1 and v_open.xact_start is null;
    if v_open.xact_start is not null then
      return null;
    end if;
  end loop;
  v_answer.reason := 'locked';
  v_answer.says := case when v_open.prepared is not null
    then format('the prepared transaction %L has it, and claims pass over it', v_open.prepared)
    else format('session %s of role %s has it in a transaction that is still open%s, and claims pass over it',
                v_open.pid, coalesce(v_open.usename, '?'),
                coalesce(', ' || coalesce(v_open.state, '') || ' for ' || workflow.say_seconds(
                  extract(epoch from clock_timestamp() - v_open.xact_start)::double precision), '')) end;
  v_answer.remedy := case when v_open.prepared is not null then format('commit prepared %L, or rollback prepared %1$L', v_open.prepared)
                          else format('let it commit or roll back; else: select pg_terminate_backend(%s)', v_open.pid) end;
  v_answer.facts := jsonb_build_object('pid', v_open.pid, 'role', v_open.usename, 'state', v_open.state,
                                       'since', v_open.xact_start, 'prepared', v_open.prepared);
  return v_answer;
end
$_$;

CREATE FUNCTION workflow.why_no_worker(p_type text) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_last workflow.workflow_worker;
  v_known workflow.workflow_registry;
  v_answer workflow.explanation;
begin
  if exists (select from workflow.workflow_worker as worker
              where worker.stopped_at is null and workflow.worker_state(worker) = 'running'
                and workflow.covers(worker.patterns, p_type))
     or workflow.worker_not_entered(p_type) is not null then
    return null;
  end if;
  select worker.* into v_last
    from workflow.workflow_worker as worker
   where workflow.covers(worker.patterns, p_type)
   order by coalesce(worker.stopped_at, worker.seen_at) desc
   limit 1;
  select known.* into v_known
    from workflow.workflow_registry as known
   where workflow.covers(array[known.workflow_name::text], p_type)
   order by right(known.workflow_name, 1) = '%', length(known.workflow_name) desc
   limit 1;
  v_answer.reason := 'no_worker';
  v_answer.says := 'no worker that runs handles its type; ' || case
    when v_last.id is not null then format('the last that did, %s, %s', v_last.id,
      case workflow.worker_state(v_last)
        when 'stopped' then 'stopped ' || workflow.say_ago(v_last.stopped_at)
        when 'stopping' then 'has been stopping for ' || workflow.say_seconds(extract(epoch from clock_timestamp() - v_last.stopping_at)::double precision)
        else 'was lost; it was last seen ' || workflow.say_ago(v_last.seen_at) end)
    when v_known.workflow_name is not null then format('a %s worker for %s was first started %s', v_known.runtime,
      v_known.workflow_name, workflow.say_ago(v_known.created_at))
    else 'none ever has' end;
  v_answer.remedy := case when v_last.id is not null or v_known.workflow_name is not null
      then 'start a worker that handles ' || p_type || ': wf worker MODULE:WORKER'
      else 'start a worker with a handler for ' || p_type || ', or cancel the run if its type is a mistake' end;
  v_answer.facts := jsonb_build_object(
    'last_worker', v_last.id, 'last_state', case when v_last.id is not null then workflow.worker_state(v_last) end,
    'last_seen_at', v_last.seen_at, 'last_stopped_at', v_last.stopped_at, 'registered_as', v_known.workflow_name,
    'runtime', v_known.runtime);
  return v_answer;
end
$$;

CREATE FUNCTION workflow.why_paused(p_type text) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  v_answer workflow.explanation;
begin
  select 'paused',
         string_agg(format('%s has been paused for %s%s%s', pause.pattern,
                           workflow.say_seconds(greatest(0, extract(epoch from clock_timestamp() - pause.paused_at))::double precision),
                           coalesce(' by ' || coalesce(pause.paused_for, pause.paused_by), ''),
                           coalesce(': ' || workflow.say_error(pause.reason), '')), '; ' order by pause.position),
         string_agg(format('wf type resume %L', pause.pattern), '; ' order by pause.position),
         jsonb_build_object('pauses', jsonb_agg(jsonb_build_object(
           'pattern', pause.pattern, 'paused_at', pause.paused_at, 'paused_by', pause.paused_by,
           'paused_for', pause.paused_for, 'reason', pause.reason) order by pause.position))
    into v_answer
    from (select one.*, row_number() over (order by right(one.pattern, 1) = '%', length(one.pattern) desc) as position
            from workflow.list_pauses() as one
           where workflow.covers(array[one.pattern], p_type)) as pause
  having count(*) > 0;
  return v_answer;
end
$$;

CREATE FUNCTION workflow.why_pending(p_run workflow.workflow_run) RETURNS workflow.explanation
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  v_now timestamptz := clock_timestamp();
  v_then workflow.explanation;
  v_answer workflow.explanation;
begin
  if p_run.deleted_at is not null then
    v_answer.reason := 'hidden';
    v_answer.says := format('it was hidden %s, so it is not claimed', workflow.say_ago(p_run.deleted_at));
    v_answer.remedy := format('update workflow.workflow_run set deleted_at = null where id = ''%s''', p_run.id);
    v_answer.facts := jsonb_build_object('hidden_at', p_run.deleted_at);
    return v_answer;
  end if;
  v_then := workflow.why_paused(p_run.type);
  if v_then is null then
    v_then := workflow.why_no_worker(p_run.type);
  end if;
  if p_run.run_at > v_now then
    v_answer.reason := 'due_later';
    v_answer.says := format('it is due in %s, at %s UTC%s%s',
      workflow.say_seconds(extract(epoch from p_run.run_at - v_now)::double precision),
      to_char(p_run.run_at, 'YYYY-MM-DD HH24:MI:SS'),
      case when p_run.attempt > 0 then format(', for attempt %s of %s; the last ended with: %s', p_run.attempt + 1,
                                              p_run.max_attempts, coalesce(workflow.say_error(p_run.last_error), '?')) else '' end,
      coalesce('; but then: ' || v_then.says, ''));
    v_answer.remedy := format('wait, or: update workflow.workflow_run set run_at = now() where id = ''%s''', p_run.id);
    v_answer.facts := jsonb_build_object('run_at', p_run.run_at, 'attempt', p_run.attempt, 'max_attempts', p_run.max_attempts,
                                         'last_error', p_run.last_error, 'then', v_then.reason);
    return v_answer;
  end if;
  if v_then is null then
    v_then := workflow.why_locked(p_run.id);
  end if;
  return case when v_then is null then workflow.why_in_line(p_run) else v_then end;
end
$$;

CREATE FUNCTION workflow.worker_not_entered(p_type text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select leased.leased_by
    from (select run.type, run.leased_by, run.lease_until
            from workflow.workflow_run as run where run.status = 'leased' limit 10000) as leased
   where leased.type = p_type and leased.lease_until > clock_timestamp()
     and not exists (select from workflow.workflow_worker as worker where worker.id = leased.leased_by)
   limit 1
$$;

CREATE TABLE workflow.workflow_worker (
    id text NOT NULL COLLATE pg_catalog."C",
    host text NOT NULL,
    pid integer,
    runtime text NOT NULL,
    version text,
    patterns text[] NOT NULL,
    concurrency integer NOT NULL,
    beat_seconds double precision NOT NULL,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    held integer DEFAULT 0 NOT NULL,
    stopping_at timestamp with time zone,
    stopped_at timestamp with time zone,
    is_lost boolean DEFAULT false NOT NULL,
    CONSTRAINT workflow_worker_lost CHECK (((NOT is_lost) OR (stopped_at IS NOT NULL)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

COMMENT ON TABLE workflow.workflow_worker IS 'The workers: one row for each boot of one, kept for a day after its end.  held is how many runs it held when it was seen.';

CREATE FUNCTION workflow.worker_state(p_worker workflow.workflow_worker) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN (p_worker).is_lost THEN 'lost'::text WHEN ((p_worker).stopped_at IS NOT NULL) THEN 'stopped'::text WHEN ((p_worker).seen_at < (clock_timestamp() - ((3)::double precision * make_interval(secs => (p_worker).beat_seconds)))) THEN 'lost'::text WHEN ((p_worker).stopping_at IS NOT NULL) THEN 'stopping'::text ELSE 'running'::text END;

CREATE FUNCTION workflow.write_policies() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
declare
  v_cases text := (
    select string_agg(
             format(case when right(policy.pattern, 1) = '%' then ' when starts_with(new.type, %L) then %L'
                         else ' when new.type = %L then %L' end,
                    rtrim(policy.pattern, '%'), not policy.keeps_events),
             '' order by right(policy.pattern, 1) = '%', length(policy.pattern) desc)
      from workflow.workflow_policy as policy
     where policy.applies_until is null
    having bool_or(not policy.keeps_events));
begin
  execute format(
    'create or replace trigger apply_policy before insert on workflow.workflow_run'
    ' for each row when (%s) execute function workflow.apply_policy()',
    coalesce('case' || v_cases || ' else false end', 'false'));
exception when lock_not_available then
  raise exception using errcode = 'WF001',
    message = 'the policy was not changed: a transaction that has written runs is still open; try again when it has ended';
end
$$;

CREATE TABLE workflow.workflow_api_key (
    id bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL,
    digest text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_by text DEFAULT SESSION_USER NOT NULL,
    revoked_at timestamp with time zone,
    revoked_by text,
    CONSTRAINT workflow_api_key_digest CHECK ((digest ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT workflow_api_key_end CHECK (((revoked_at IS NULL) = (revoked_by IS NULL))),
    CONSTRAINT workflow_api_key_name CHECK ((name ~ '^[A-Za-z0-9._@-]{1,100}$'::text)),
    CONSTRAINT workflow_api_key_role CHECK ((role = ANY (ARRAY['reader'::text, 'operator'::text, 'admin'::text])))
);

COMMENT ON TABLE workflow.workflow_api_key IS 'Who may ask the server for what: of each key its SHA-256, never the key.  Rows are history; a revoked one stays.';

ALTER TABLE workflow.workflow_api_key ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME workflow.workflow_api_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE workflow.workflow_count (
    type text NOT NULL COLLATE pg_catalog."C",
    status text NOT NULL,
    runs bigint NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE workflow.workflow_count IS 'How many runs there were at the last fold; workflow_delta has what came since, and the function counts both together.';

ALTER TABLE workflow.workflow_event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME workflow.workflow_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE workflow.workflow_fold (
    is_only boolean DEFAULT true NOT NULL,
    from_xid xid8 DEFAULT '0'::xid8 NOT NULL,
    open_xids xid8[] DEFAULT '{}'::xid8[] NOT NULL,
    server_id bigint,
    folded_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    forgotten_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    recounted_at timestamp with time zone,
    CONSTRAINT workflow_fold_only CHECK (is_only)
);

COMMENT ON TABLE workflow.workflow_fold IS 'How far workflow_delta is folded into workflow_count and workflow_rate.';

CREATE TABLE workflow.workflow_migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE workflow.workflow_pause (
    id bigint NOT NULL,
    pattern text NOT NULL COLLATE pg_catalog."C",
    reason text,
    paused_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    paused_by text DEFAULT SESSION_USER NOT NULL,
    paused_for text DEFAULT workflow.on_behalf_of(),
    resumed_at timestamp with time zone,
    resumed_by text,
    resumed_for text,
    CONSTRAINT workflow_pause_end CHECK (((resumed_at IS NULL) = (resumed_by IS NULL)))
);

COMMENT ON TABLE workflow.workflow_pause IS 'When patterns were not claimed: who paused and resumed them, in whose name, and why.  Written whenever is_enabled changes.';

ALTER TABLE workflow.workflow_pause ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME workflow.workflow_pause_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE workflow.workflow_policy (
    id bigint NOT NULL,
    pattern text NOT NULL COLLATE pg_catalog."C",
    keeps_events boolean NOT NULL,
    keeps_succeeded boolean NOT NULL,
    applies_from timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    applies_until timestamp with time zone,
    set_by text DEFAULT SESSION_USER NOT NULL,
    ended_by text,
    CONSTRAINT workflow_policy_end CHECK ((((applies_until IS NULL) = (ended_by IS NULL)) AND (applies_until >= applies_from))),
    CONSTRAINT workflow_policy_pattern CHECK (((length(pattern) <= 200) AND (pattern ~ '^([A-Za-z0-9_.-]+%?|%)$'::text)))
);

COMMENT ON TABLE workflow.workflow_policy IS 'What a type, or a prefix ending in %, keeps: its events, its succeeded runs.  Set by set_policy; the most specific counts.';

ALTER TABLE workflow.workflow_policy ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME workflow.workflow_policy_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE workflow.workflow_rate (
    step_seconds integer NOT NULL,
    at timestamp with time zone NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    submitted bigint NOT NULL,
    claimed bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    retried bigint NOT NULL,
    cancelled bigint NOT NULL,
    expired bigint NOT NULL
)
WITH (fillfactor='70');

COMMENT ON TABLE workflow.workflow_rate IS 'How many runs were submitted, claimed ... in the step_seconds from "at" on, as far as they are folded; type '''': of all.';

CREATE TABLE workflow.workflow_registry (
    workflow_name text NOT NULL COLLATE pg_catalog."C",
    runtime text NOT NULL,
    is_enabled boolean DEFAULT true NOT NULL,
    description text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE workflow.workflow_registry IS 'Which types (or prefixes ending in %) exist and which runtime serves them.  A disabled one is not claimed.';

CREATE TABLE workflow.workflow_schedule (
    id uuid DEFAULT workflow.uuid7() NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    schedule text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    next_run_at timestamp with time zone,
    last_run_at timestamp with time zone,
    enabled boolean DEFAULT true NOT NULL,
    priority integer DEFAULT 100 NOT NULL,
    max_attempts integer DEFAULT 3 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone
);

COMMENT ON TABLE workflow.workflow_schedule IS 'Recurring intents: a cron expression and the run it makes.';

ALTER TABLE ONLY workflow.workflow_api_key
    ADD CONSTRAINT workflow_api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_count
    ADD CONSTRAINT workflow_count_pkey PRIMARY KEY (type, status);

ALTER TABLE ONLY workflow.workflow_event
    ADD CONSTRAINT workflow_event_pkey PRIMARY KEY (workflow_id, id);

ALTER TABLE ONLY workflow.workflow_fold
    ADD CONSTRAINT workflow_fold_pkey PRIMARY KEY (is_only);

ALTER TABLE ONLY workflow.workflow_migration
    ADD CONSTRAINT workflow_migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY workflow.workflow_operation
    ADD CONSTRAINT workflow_operation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_pause
    ADD CONSTRAINT workflow_pause_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_policy
    ADD CONSTRAINT workflow_policy_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_rate
    ADD CONSTRAINT workflow_rate_pkey PRIMARY KEY (step_seconds, at, type);

ALTER TABLE ONLY workflow.workflow_registry
    ADD CONSTRAINT workflow_registry_pkey PRIMARY KEY (workflow_name);

ALTER TABLE ONLY workflow.workflow_run
    ADD CONSTRAINT workflow_run_idempotency_key UNIQUE (idempotency_key) WITH (deduplicate_items=off);

ALTER TABLE ONLY workflow.workflow_run
    ADD CONSTRAINT workflow_run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_schedule
    ADD CONSTRAINT workflow_schedule_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workflow.workflow_worker
    ADD CONSTRAINT workflow_worker_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX workflow_api_key_present ON workflow.workflow_api_key USING btree (name) WHERE (revoked_at IS NULL);

CREATE INDEX workflow_delta_xid ON workflow.workflow_delta USING btree (xid);

CREATE INDEX workflow_event_stream ON workflow.workflow_event USING btree (id);

CREATE INDEX workflow_operation_running ON workflow.workflow_operation USING btree (requested_at) WHERE (state = 'running'::text);

CREATE UNIQUE INDEX workflow_pause_present ON workflow.workflow_pause USING btree (pattern) WHERE (resumed_at IS NULL);

CREATE UNIQUE INDEX workflow_policy_present ON workflow.workflow_policy USING btree (pattern) WHERE (applies_until IS NULL);

CREATE INDEX workflow_registry_disabled ON workflow.workflow_registry USING btree (workflow_name) WHERE (NOT is_enabled);

CREATE INDEX workflow_run_aside ON workflow.workflow_run USING btree (status, id) WHERE (status = ANY (ARRAY['waiting'::text, 'failed'::text, 'cancelled'::text]));

CREATE INDEX workflow_run_ended ON workflow.workflow_run USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX workflow_run_lane ON workflow.workflow_run USING btree (type, priority, run_at, id) WHERE ((status = 'pending'::text) AND (deleted_at IS NULL) AND (NOT is_suspect));

CREATE INDEX workflow_run_leased ON workflow.workflow_run USING btree (leased_by) WHERE (status = 'leased'::text);

CREATE INDEX workflow_run_suspect ON workflow.workflow_run USING btree (run_at) WHERE ((status = 'pending'::text) AND (deleted_at IS NULL) AND is_suspect);

CREATE TRIGGER a_guard_cancel AFTER UPDATE ON workflow.workflow_run FOR EACH ROW WHEN (((new.status = 'cancelled'::text) AND (old.status <> 'cancelled'::text))) EXECUTE FUNCTION workflow.guard_transition();

CREATE TRIGGER a_guard_change BEFORE DELETE OR UPDATE OR TRUNCATE ON workflow.workflow_event FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_change BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON workflow.workflow_operation FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_change BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON workflow.workflow_pause FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_change BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON workflow.workflow_policy FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_delete BEFORE DELETE OR TRUNCATE ON workflow.workflow_run FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_insert BEFORE INSERT ON workflow.workflow_event FOR EACH STATEMENT WHEN ((pg_trigger_depth() = 0)) EXECUTE FUNCTION workflow.guard_history();

CREATE TRIGGER a_guard_insert BEFORE INSERT ON workflow.workflow_run FOR EACH ROW EXECUTE FUNCTION workflow.guard_insert();

CREATE TRIGGER a_guard_transition AFTER UPDATE ON workflow.workflow_run FOR EACH STATEMENT EXECUTE FUNCTION workflow.guard_transition();

CREATE TRIGGER a_guard_update BEFORE UPDATE ON workflow.workflow_run FOR EACH ROW WHEN (((COALESCE(current_setting('workflow.transition'::text, true), ''::text) = ''::text) OR (CURRENT_USER <> 'owner'::name))) EXECUTE FUNCTION workflow.guard_update();

CREATE TRIGGER apply_policy BEFORE INSERT ON workflow.workflow_run FOR EACH ROW WHEN (false) EXECUTE FUNCTION workflow.apply_policy();

CREATE TRIGGER audit_cancel AFTER UPDATE ON workflow.workflow_run FOR EACH ROW WHEN (((new.status = 'cancelled'::text) AND (old.status <> 'cancelled'::text))) EXECUTE FUNCTION workflow.audit_cancel();

CREATE TRIGGER audit_insert AFTER INSERT ON workflow.workflow_run REFERENCING NEW TABLE AS new_runs FOR EACH STATEMENT EXECUTE FUNCTION workflow.audit_insert();

CREATE TRIGGER audit_pause AFTER INSERT OR DELETE OR UPDATE ON workflow.workflow_registry FOR EACH ROW EXECUTE FUNCTION workflow.audit_pause();

CREATE TRIGGER audit_update AFTER UPDATE ON workflow.workflow_run REFERENCING OLD TABLE AS old_runs NEW TABLE AS new_runs FOR EACH STATEMENT EXECUTE FUNCTION workflow.audit_update();

CREATE TRIGGER count_deletion AFTER DELETE ON workflow.workflow_run REFERENCING OLD TABLE AS old_runs FOR EACH STATEMENT EXECUTE FUNCTION workflow.count_deletion();

REVOKE ALL ON FUNCTION workflow.add_key(p_name text, p_role text, p_digest text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.apply_policy() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.audit_cancel() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.audit_insert() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.audit_pause() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.audit_update() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.beat_workers(p_workers text[], p_held integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.cancel(p_ids uuid[], p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.cancel_for(p_ids uuid[], p_reason text, p_operation text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.carry_operation(p_carrier text, p_limit integer, p_looks integer, p_lease_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.change_runs(p_operation workflow.workflow_operation, p_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.claim(p_worker text, p_patterns text[], p_limit integer, p_lease_seconds double precision, p_held integer, p_lanes text, p_look boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.count_deletion() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.count_operable(p_kind text, p_patterns text[], p_statuses text[], p_created_from timestamp with time zone, p_created_before timestamp with time zone, p_walk jsonb, p_looks integer, OUT runs bigint, OUT walk jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.count_prunable(p_ended_before timestamp with time zone, p_patterns text[], p_statuses text[], p_from timestamp with time zone, p_looks integer, OUT runs bigint, OUT reached_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.delete_succeeded(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.drop_policy(p_pattern text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.end_workers(p_workers text[], p_state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.exchange(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[], p_results jsonb[], p_errors text[], p_delays_seconds double precision[], p_patterns text[], p_limit integer, p_lease_seconds double precision, p_held integer, p_lanes text, p_look boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.expire(p_dead text[], p_limit integer, p_taken uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.finish(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[], p_results jsonb[], p_errors text[], p_delays_seconds double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.fold(p_limit integer, p_pause_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.forget_rates(p_forgotten_at timestamp with time zone, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.guard_history() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.guard_insert() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.guard_transition() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.guard_update() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.heartbeat(p_worker text, p_ids uuid[], p_tokens bigint[], p_seconds double precision, p_explicit boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.is_deleted_on_success(p_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.left_of(p_operation workflow.workflow_operation, p_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.list_keys() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.lock_due_runs(p_patterns text[], p_limit integer, p_now timestamp with time zone, p_disabled text[], OUT ids uuid[], OUT lanes workflow.lane[], OUT next_due_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.lock_due_suspect(p_patterns text[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.lock_in_lanes(p_lanes workflow.lane[], p_limit integer, p_now timestamp with time zone, OUT ids uuid[], OUT lanes workflow.lane[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.next_lease_until() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.next_upkeep(OUT lease_until timestamp with time zone, OUT has_operations boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.open_transactions(p_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.operate(p_kind text, p_patterns text[], p_reason text, p_statuses text[], p_created_from timestamp with time zone, p_created_before timestamp with time zone, p_attempts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.operation_filter(p_kind text, p_patterns text[], p_statuses text[], p_created_from timestamp with time zone, p_created_before timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.pause(p_pattern text, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.progress(p_worker text, p_id uuid, p_token bigint, p_progress jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.prune(p_ended_before timestamp with time zone, p_patterns text[], p_statuses text[], p_limit integer, p_from timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.recount() FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.register_types(p_names text[], p_runtime text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.register_worker(p_worker text, p_patterns text[], p_concurrency integer, p_host text, p_pid integer, p_runtime text, p_version text, p_beat_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.release(p_worker text, p_ids uuid[], p_tokens bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.reopen(p_ids uuid[], p_attempts integer, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.reopen_for(p_ids uuid[], p_attempts integer, p_reason text, p_operation text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.replace_policy(p_pattern text, p_keeps_events boolean, p_keeps_succeeded boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.resume(p_pattern text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.revoke_key(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.set_policy(p_pattern text, p_keeps_events boolean, p_keeps_succeeded boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.stop_operation(p_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.stream_place(OUT last_id bigint, OUT xmin bigint, OUT xmax bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.submit(p_type text, p_payload jsonb, p_idempotency_key text, p_priority integer, p_run_at timestamp with time zone, p_delay_seconds double precision, p_max_attempts integer, p_traceparent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.submit_many(p_types text[], p_payloads jsonb[], p_idempotency_keys text[], p_priorities integer[], p_run_ats timestamp with time zone[], p_delays_seconds double precision[], p_max_attempts integer[], p_traceparent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.traceparents(p_worker text, p_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.walk_runs(p_kind text, p_filter jsonb, p_asked_at timestamp with time zone, p_walk jsonb, p_limit integer, p_looks integer, OUT ids uuid[], OUT runs integer, OUT walk jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION workflow.write_policies() FROM PUBLIC;
