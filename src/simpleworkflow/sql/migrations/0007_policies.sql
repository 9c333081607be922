-- Policies: what a type keeps.  They trade history for speed, and are the user's choice.
--
-- keeps_events counts at the insert: the run takes it along (workflow_run.keeps_events), so that all the others ask
-- the run.  Not asked of the policies by the run's type and age: created_at can be written by its producer, and one
-- whose snapshot is older than a change of policy would leave what this change says it does not.
-- keeps_succeeded counts at the finish.

-- ── keeps_events ───────────────────────────────────────────────────────────────────────────────────

create function {schema}.apply_policy() returns trigger language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  new.keeps_events := false;
  return new;
end
$fn$;

-- After a_guard_insert: no producer writes the column.  The condition is the policies themselves, see below; asked
-- of the table instead, each row would cost twice what the event does that is saved (15 instead of 8 microseconds for
-- the insert of a run).
create trigger apply_policy before insert on {schema}.workflow_run
  for each row when (false) execute function {schema}.apply_policy();

-- Write the present policies into the condition of the trigger, the most specific first.  Waits for everybody who has
-- written runs in a transaction that is still open, but not for long: behind it nobody writes.
create function {schema}.write_policies() returns void language plpgsql
  set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $fn$
declare
  v_cases text := (
    select string_agg(
             format(case when right(policy.pattern, 1) = '%' then ' when starts_with(new.type, %L) then %L'
                         else ' when new.type = %L then %L' end,
                    rtrim(policy.pattern, '%'), not policy.keeps_events),
             '' order by right(policy.pattern, 1) = '%', length(policy.pattern) desc)
      from {schema}.workflow_policy as policy
     where policy.applies_until is null
    having bool_or(not policy.keeps_events));
begin
  execute format(
    'create or replace trigger apply_policy before insert on {schema}.workflow_run'
    ' for each row when (%s) execute function {schema}.apply_policy()',
    coalesce('case' || v_cases || ' else false end', 'false'));
exception when lock_not_available then
  raise exception using errcode = 'WF001',
    message = 'the policy was not changed: a transaction that has written runs is still open; try again when it has ended';
end
$fn$;

-- ── keeps_succeeded ────────────────────────────────────────────────────────────────────────────────

-- Whether a type that succeeds is to be deleted: so says the most specific of the present policies that cover it, the
-- type itself before prefixes, a longer prefix before a shorter.
create function {schema}.is_deleted_on_success(p_type text) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
begin
  return coalesce((
    select not policy.keeps_succeeded
      from {schema}.workflow_policy as policy
     where policy.applies_until is null
       and (policy.pattern = p_type
            or right(policy.pattern, 1) = '%' and starts_with(p_type, left(policy.pattern, -1)))
     order by right(policy.pattern, 1) = '%', length(policy.pattern) desc
     limit 1), false);
end
$fn$;

-- Delete those of the runs that this worker still holds, that have succeeded, and whose policy does not keep that;
-- return them.  Called by finish, with its fence and its order of locks.
create function {schema}.delete_succeeded(p_worker text, p_ids uuid[], p_tokens bigint[], p_statuses text[])
returns setof uuid
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan as $fn$
declare
  v_types text[];
  v_are_all boolean;
  v_deleted uuid[];
  v_with_events uuid[];
begin
  -- A type never changes, so that no lock is needed to read it.
  select array_agg(found.type) filter (where found.is_deleted), bool_and(found.is_deleted) into v_types, v_are_all
    from (select run.type, {schema}.is_deleted_on_success(run.type) as is_deleted
            from (select distinct run.type from {schema}.workflow_run as run where run.id = any (p_ids)) as run) as found;
  if v_types is null then
    return;
  end if;
  if not v_are_all or exists (select from unnest(p_statuses) as status where status <> 'succeeded') then
    -- The others are written by a second statement; all are locked in the order of their ids before.
    perform from {schema}.workflow_run as run
      where run.id = any (p_ids) and run.leased_by = p_worker order by run.id for update;
  end if;
  with deleted as (
    delete from {schema}.workflow_run as run
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
    delete from {schema}.workflow_event where workflow_id = any (v_with_events);
  end if;
  return query select unnest(v_deleted);
end
$fn$;

-- ── set, drop ──────────────────────────────────────────────────────────────────────────────────────

-- End the policy of a pattern, in the name of whoever calls, and begin another, if one is given; return whether
-- that changed anything.
create function {schema}.replace_policy(p_pattern text, p_keeps_events boolean, p_keeps_succeeded boolean)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $fn$
declare
  v_now timestamptz;
  v_present {schema}.workflow_policy;
  v_has_eventless boolean;
begin
  if p_pattern is null or length(p_pattern) > 200 or p_pattern !~ '^([A-Za-z0-9_.-]+%?|%)$' then
    raise exception using errcode = 'WF002',
      message = format('p_pattern: expected a type, or a prefix that ends in %%, got %s',
                       coalesce(quote_literal(regexp_replace(left(p_pattern, 60), '[[:cntrl:]]', '?', 'g')), 'null'));
  end if;
  begin
    lock table {schema}.workflow_policy in share row exclusive mode;   -- one after the other; readers pass
  exception when lock_not_available then
    raise exception using errcode = 'WF001',
      message = 'the policy was not changed: a transaction that has changed policies is still open; try again when it has ended';
  end;
  v_now := clock_timestamp();
  select policy.pattern, policy.keeps_events, policy.keeps_succeeded into
         v_present.pattern, v_present.keeps_events, v_present.keeps_succeeded
    from {schema}.workflow_policy as policy
   where policy.pattern = p_pattern and policy.applies_until is null;
  if (v_present.keeps_events, v_present.keeps_succeeded) is not distinct from (p_keeps_events, p_keeps_succeeded) then
    return false;
  end if;
  v_has_eventless := exists (
    select from {schema}.workflow_policy as policy where policy.applies_until is null and not policy.keeps_events);
  perform set_config('workflow.transition', 'policy', true);
  update {schema}.workflow_policy as policy
     set applies_until = greatest(v_now, policy.applies_from), ended_by = session_user
   where policy.pattern = p_pattern and policy.applies_until is null;
  if p_keeps_events is not null then
    insert into {schema}.workflow_policy (pattern, keeps_events, keeps_succeeded, applies_from)
    values (p_pattern, p_keeps_events, p_keeps_succeeded, v_now);
  end if;
  perform set_config('workflow.transition', '', true);
  if v_present.keeps_events is distinct from p_keeps_events and (v_has_eventless or p_keeps_events is false) then
    perform {schema}.write_policies();
  end if;
  return true;
end
$fn$;

-- Let runs that a pattern covers keep, or not keep, their events (from the next insert on) and the runs that
-- succeed (from the next finish on); return whether that changed anything.
create function {schema}.set_policy(
  p_pattern text, p_keeps_events boolean default true, p_keeps_succeeded boolean default true)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  if p_keeps_events is null or p_keeps_succeeded is null then
    raise exception using errcode = 'WF002', message = 'p_keeps_events, p_keeps_succeeded: expected true or false, got null';
  end if;
  return {schema}.replace_policy(p_pattern, p_keeps_events, p_keeps_succeeded);
end
$fn$;

-- Let a pattern have no policy of its own any more: a less specific one applies, or everything is kept; return whether
-- that changed anything.
create function {schema}.drop_policy(p_pattern text)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return {schema}.replace_policy(p_pattern, null, null);
end
$fn$;

revoke execute on function
  {schema}.apply_policy, {schema}.write_policies, {schema}.is_deleted_on_success, {schema}.delete_succeeded,
  {schema}.replace_policy, {schema}.set_policy, {schema}.drop_policy
  from public;
