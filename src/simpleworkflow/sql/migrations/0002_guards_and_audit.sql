-- Who may change what, and the event that every change leaves.
--
-- A function of this schema names its transition in the setting workflow.transition, local to the transaction,
-- for the length of its one statement, and who acts in workflow.actor.  A write without it is a plain one: the
-- guard then allows what the table of transitions allows to plain SQL, and nothing else.  The setting alone
-- is worth nothing to others: it counts only with the table owner's rights, which every other role has only
-- inside our security definer functions.  (A role that owns the tables can drop the triggers too; run
-- migrations as one role and the application as another where that matters.)

-- Wake an idle worker for runs of these types, if there is one.  An idle worker holds this lock exclusively;
-- NOTIFY only then: in every producer's transaction it would serialise their commits (8 clients: 11.9k to 4.1k
-- inserts a second).  The types let a worker that handles none of them sleep on.
create function {schema}.wake(p_types text[]) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if not pg_try_advisory_xact_lock_shared(hashtextextended('{schema}.hungry', 0)) then
    perform pg_notify('{schema}', 'wake ' || case when cardinality(p_types) > 16 then '%'
                                                  else array_to_string(p_types, ' ') end);
  end if;
end
$fn$;

-- Whether a payload certainly prints as more than a megabyte, told without printing it: ten bytes such as 1e131071
-- print as 128 kB, and 45 kB of them took a backend 4 GB and 20 s.  1,049 numbers of a thousand digits, or 53 of
-- 20,000, are enough; what has fewer prints within some 100 MB, and is then measured.
create function {schema}.prints_beyond_limit(p_payload jsonb) returns boolean
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $fn$
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
$fn$;

-- Whether a value nests deeper than 100 levels: of more, many a language's reader of JSON makes an error.
create function {schema}.nests_beyond_limit(p_value jsonb) returns boolean
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $fn$
  select jsonb_path_exists(p_value, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")')
$fn$;

-- Raise the first reason that a new run, or the plain part of a changed one, is not acceptable.
create function {schema}.refuse_values(run {schema}.workflow_run) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
declare
  v_bytes bigint := case when not {schema}.prints_beyond_limit(run.payload) then octet_length(run.payload::text) end;
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
  elsif {schema}.nests_beyond_limit(run.payload) then
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
$fn$;

-- Not as the condition of its trigger, which is kept as text and read anew for each statement: these 16 kB cost an insert of
-- one run a quarter of its time.  The price is 0.8 of 8 microseconds for each run of a thousand.
-- A function's literals are read in the session: they hold no backslash, which standard_conforming_strings would change.
create function {schema}.guard_insert() returns trigger language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
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
                     and {schema}.prints_beyond_limit(new.payload)
                  then true
                else octet_length(new.payload::text) > 1048576 end) then
    perform {schema}.refuse_values(new);
    raise exception using errcode = 'WF001',
      message = format('a new run cannot begin with status %s, an attempt, a lease, a result, a parent, an end or keeps_events false',
                       coalesce(quote_literal(regexp_replace(left(new.status, 60), '[[:cntrl:]]', '?', 'g')), 'null')),
      hint = 'insert type and payload, and if needed id, priority, run_at, idempotency_key, max_attempts';
  end if;
  return new;
end
$fn$;

create trigger a_guard_insert before insert on {schema}.workflow_run
  for each row execute function {schema}.guard_insert();

-- In whose name the role that has logged in says to act: the setting workflow.on_behalf_of, local to the transaction,
-- which is worth what that role is worth.
create function {schema}.on_behalf_of() returns text language sql stable
  return nullif(left(current_setting('workflow.on_behalf_of', true), 200), '');

-- Who acts, for the data of an event: that role, which PostgreSQL knows, and in whose name.
create function {schema}.acting() returns jsonb language sql stable
  set search_path = pg_catalog, pg_temp as $fn$
  select jsonb_strip_nulls(jsonb_build_object(
    'by', session_user, 'on_behalf_of', {schema}.on_behalf_of()))
$fn$;

create function {schema}.audit_insert() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
declare
  v_types text[];
  v_runs bigint;
  v_type text collate "C";
  v_last_type text collate "C";
  v_data jsonb := case when coalesce(current_setting('workflow.on_behalf_of', true), '') = ''
                         then jsonb_build_object('by', session_user) else {schema}.acting() end;
begin
  insert into {schema}.workflow_event (workflow_id, event_type, data)
  select run.id, 'created', v_data
    from new_runs as run
   where run.keeps_events;
  -- What is counted (0008) tells the types too: a trigger of its own cost twice as much.  A guard has seen to it that
  -- each is pending and shown.  Mostly all are of one type: by groups a lone run takes a server that has been idle a
  -- twelfth more.
  select count(*), min(run.type), max(run.type) into v_runs, v_type, v_last_type from new_runs as run;
  if v_type = v_last_type then
    insert into {schema}.workflow_delta (runs, type, to_status, event_type)
    values (v_runs, v_type, 'pending', 'created');
    v_types := array[v_type];
  else
    with counted as (
      insert into {schema}.workflow_delta (runs, type, to_status, event_type)
      select count(*), run.type, 'pending', 'created' from new_runs as run group by run.type
      returning type)
    select array_agg(counted.type) into v_types from (select counted.type from counted limit 17) as counted;
  end if;
  if cardinality(v_types) > 0 then   -- also where no event was written
    perform {schema}.wake(v_types);
  end if;
  return null;
end
$fn$;

create trigger audit_insert after insert on {schema}.workflow_run
  referencing new table as new_runs
  for each statement execute function {schema}.audit_insert();

-- The setting that names a transition is worth nothing to a role without the owner's rights.  These have by themselves, and
-- nobody can take it from them, the right to grant: to ask for that reads no table (5 instead of 16 microseconds for each
-- claim and each finish).  A role to which they have granted TRIGGER with the grant option passes too: it could as
-- well put a trigger on the table that acts in the owner's name.
create function {schema}.guard_transition() returns trigger language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if current_setting('workflow.transition', true) <> ''
     and not has_table_privilege(tg_relid, 'TRIGGER WITH GRANT OPTION') then
    raise exception using errcode = 'WF001',
      message = 'workflow.transition is set, but only the functions of this schema may make a transition',
      hint = 'reset workflow.transition and call the function instead';
  end if;
  return null;
end
$fn$;

-- When the statement has ended and before its events are written: a subquery can name a transition at any time until then.
create trigger a_guard_transition after update on {schema}.workflow_run
  for each statement execute function {schema}.guard_transition();
-- A cancel is audited row by row, before that; nothing comes between the two triggers of a row.
create trigger a_guard_cancel after update on {schema}.workflow_run
  for each row when (new.status = 'cancelled' and old.status <> 'cancelled')
  execute function {schema}.guard_transition();

-- A plain UPDATE may cancel, may change priority, run_at and payload of a pending run, and may hide or show
-- (deleted_at) a run that nobody executes.  updated_at is the database's: what is written to it is replaced.
create function {schema}.guard_update() returns trigger language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
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
      perform {schema}.refuse_values(new);
    end if;
    if new.status = 'pending' and (new.run_at < old.run_at or v_hides and new.deleted_at is null) then
      perform {schema}.wake(array[new.type::text]);
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
$fn$;

-- Whose write it is is asked for each row, not only when the statement has ended: a subquery can name a transition between
-- two rows.  Written out, since to look the owner up would cost each row of a claim a microsecond.
do $do$
begin
  execute format($sql$
    create trigger a_guard_update before update on {schema}.workflow_run
      for each row when (coalesce(current_setting('workflow.transition', true), '') = '' or current_user <> %L)
      execute function {schema}.guard_update()
  $sql$, current_user);
end
$do$;

-- The events of what functions do, one insert for a whole batch, and what every UPDATE changes the counts by.  The new
-- rows tell everything but who acts, also whether their policy keeps events.
--
-- Most runs of a batch are in the same attempt with the same token, so that claim and finish build what says it once, of
-- whichever run comes first, and not for each: 2 of 29 microseconds a drained run.
create function {schema}.audit_update() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
declare
  v_transition text := coalesce(current_setting('workflow.transition', true), '');
  v_actor text := current_setting('workflow.actor', true);
begin
  if v_transition = 'claim' then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    select run.id, 'leased',
           case when run.attempt = first.attempt and run.fencing_token = first.fencing_token then first.data
                else jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token) end
      from (select run.attempt, run.fencing_token,
                   jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token) as data
              from new_runs as run limit 1) as first
     cross join new_runs as run
     where run.keeps_events;
  elsif v_transition = 'finish' then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
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
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    select run.id, 'heartbeat',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                              'seconds', current_setting('workflow.detail')::double precision,
                              'lease_until', run.lease_until)
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'expire' then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    select run.id, 'expired',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token,
                              'to', run.status, 'error', run.last_error, 'by', session_user)
           || case when run.is_suspect and run.status = 'pending' then '{"suspect": true}' else '{}' end::jsonb
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'release' then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    select run.id, 'released',
           jsonb_build_object('worker', v_actor, 'attempt', run.attempt, 'token', run.fencing_token)
      from new_runs as run
     where run.keeps_events;
  elsif v_transition = 'reopen' then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    select run.id, 'reopened',
           {schema}.acting() || jsonb_strip_nulls(jsonb_build_object(
             'attempt', run.attempt, 'max_attempts', run.max_attempts,
             'reason', nullif(current_setting('workflow.detail'), '')))
           || coalesce(nullif(current_setting('workflow.operation', true), '')::jsonb, '{}')
      from new_runs as run
     where run.keeps_events;
  end if;
  -- Counts (0008): the transition tells what the runs were before.  In a trigger of its own it cost as much again.
  if v_transition = 'claim' then
    insert into {schema}.workflow_delta (runs, type, from_status, to_status, event_type)
    select count(*), run.type, 'pending', 'leased', 'leased' from new_runs as run group by run.type;
  elsif v_transition in ('finish', 'expire', 'release') then
    insert into {schema}.workflow_delta (runs, type, from_status, to_status, event_type)
    select count(*), run.type, 'leased', run.status,
           case v_transition when 'expire' then 'expired'
                             when 'release' then 'released'
                             else case run.status when 'pending' then 'retried' else run.status end end
      from new_runs as run
     where run.deleted_at is null
     group by run.type, run.status;
  elsif v_transition not in ('heartbeat', 'extend') then   -- those change no status
    -- How many more, or fewer, of each status there are afterwards: a plain UPDATE may be one of a million runs.
    insert into {schema}.workflow_delta (runs, type, to_status, event_type)
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
    perform {schema}.wake(array(select distinct run.type from new_runs as run
                                 where run.status = 'pending' limit 17));
  end if;
  return null;
end
$fn$;

create trigger audit_update after update on {schema}.workflow_run
  referencing old table as old_runs new table as new_runs
  for each statement execute function {schema}.audit_update();

-- A cancel, plain or by function, is rare and needs the old row; a worker that executes the run is told.
create function {schema}.audit_cancel() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if new.keeps_events then
    insert into {schema}.workflow_event (workflow_id, event_type, data)
    values (new.id, 'cancelled', {schema}.acting() || jsonb_strip_nulls(jsonb_build_object(
      'from', old.status, 'attempt', old.attempt, 'token', old.fencing_token,
      'worker', old.leased_by,
      'reason', case when current_setting('workflow.transition', true) = 'cancel'
                     then nullif(current_setting('workflow.detail'), '') end))
      || case when current_setting('workflow.transition', true) = 'cancel'
              then coalesce(nullif(current_setting('workflow.operation', true), '')::jsonb, '{}')
              else '{}' end);
  end if;
  if old.status = 'leased' then
    perform pg_notify('{schema}', format('cancelled %s %s', new.id, old.fencing_token));
  end if;
  return null;
end
$fn$;

create trigger audit_cancel after update on {schema}.workflow_run
  for each row when (new.status = 'cancelled' and old.status <> 'cancelled')
  execute function {schema}.audit_cancel();

-- Runs and events leave only through prune, and through finish where a policy does not keep what succeeded; events are
-- written only by the triggers and functions here, policies and operations only by their functions.  As above, the setting
-- that names the function counts only with the owner's rights.
create function {schema}.guard_history() returns trigger language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
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
$fn$;

create trigger a_guard_delete before delete or truncate on {schema}.workflow_run
  for each statement execute function {schema}.guard_history();
create trigger a_guard_change before update or delete or truncate on {schema}.workflow_event
  for each statement execute function {schema}.guard_history();
-- What the audit triggers write does not even call it.
create trigger a_guard_insert before insert on {schema}.workflow_event
  for each statement when (pg_trigger_depth() = 0)
  execute function {schema}.guard_history();
create trigger a_guard_change before insert or update or delete or truncate on {schema}.workflow_policy
  for each statement execute function {schema}.guard_history();

-- A trigger needs no right to its function once it is there, but whoever may execute the function may put it on a table
-- of its own: an audit function, which acts in the owner's name, would then write events of that table's rows.
revoke execute on function
  {schema}.guard_insert, {schema}.audit_insert, {schema}.guard_transition, {schema}.guard_update,
  {schema}.audit_update, {schema}.audit_cancel, {schema}.guard_history
  from public;
