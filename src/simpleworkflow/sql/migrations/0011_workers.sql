-- Who the workers are, and why a run does not run.
--
-- A worker enters itself when it starts, whoever extends its leases says every few seconds that it is alive and how much
-- it holds, and at its end it says so itself, or somebody who knows that it is dead.  No run depends on these rows:
-- leases and fencing tokens do that.  They are for people, and for why.

create table {schema}.workflow_worker (
  id           text             collate "C" not null,
  host         text             not null,
  pid          int,
  runtime      text             not null,
  version      text,
  patterns     text[]           not null,
  concurrency  int              not null,
  beat_seconds double precision not null,
  started_at   timestamptz      not null,
  seen_at      timestamptz      not null,
  held         int              not null default 0,
  stopping_at  timestamptz,
  stopped_at   timestamptz,
  is_lost      boolean          not null default false,
  constraint workflow_worker_pkey primary key (id),
  constraint workflow_worker_lost check (not is_lost or stopped_at is not null)
);

comment on table {schema}.workflow_worker is
  'The workers: one row for each boot of one, kept for a day after its end.  held is how many runs it held when it was seen.';

-- What a beat changes is in no index, and its new version finds room on the page.
alter table {schema}.workflow_worker set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- running; stopping: it claims nothing more; stopped: it said so; lost: it is known dead, or has not been seen for three
-- beats.
create function {schema}.worker_state(p_worker {schema}.workflow_worker) returns text language sql stable
  return case when p_worker.is_lost then 'lost'
              when p_worker.stopped_at is not null then 'stopped'
              when p_worker.seen_at < clock_timestamp() - 3 * make_interval(secs => p_worker.beat_seconds) then 'lost'
              when p_worker.stopping_at is not null then 'stopping'
              else 'running' end;

-- ── what workers say ───────────────────────────────────────────────────────────────────────────────

-- Enter a worker, or what has changed of it; once an hour is often enough to be there again, should its row be gone.
-- p_beat_seconds is how often it will be seen at least.  What ended a day ago is forgotten, and of those that ended
-- since all but the last thousand.
create function {schema}.register_worker(
  p_worker text,
  p_patterns text[],
  p_concurrency int,
  p_host text default '',
  p_pid int default null,
  p_runtime text default 'python',
  p_version text default null,
  p_beat_seconds double precision default 10)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $fn$
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
  delete from {schema}.workflow_worker as worker
   where worker.id = any (array(
           select gone.id
             from {schema}.workflow_worker as gone
            where greatest(gone.seen_at, gone.stopped_at) < v_now - interval '1 day'
               or gone.id in (select ended.id from {schema}.workflow_worker as ended
                               where ended.stopped_at is not null
                               order by ended.stopped_at desc offset 1000)
              for update skip locked));
  insert into {schema}.workflow_worker as known
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
$fn$;

-- Say of workers that they are alive, and how many runs each holds; return those that are known.  Called beside what
-- extends leases: it waits for nobody longer than a tenth of a second.
create function {schema}.beat_workers(p_workers text[], p_held int[])
returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
set enable_seqscan = off set jit = off as $fn$
begin
  return query
  update {schema}.workflow_worker as worker
     set seen_at = clock_timestamp(), held = greatest(0, coalesce(beaten.held, 0))
    from (select * from unnest(p_workers, p_held) as named (id, held) order by named.id) as beaten
   where worker.id = any (p_workers)
     and worker.id = beaten.id
     and worker.stopped_at is null   -- who was known dead does not live again
  returning worker.id::text;
end
$fn$;

-- Say that workers are stopping (they claim nothing more), have stopped, or are lost (known dead); return those that
-- this changed.
create function {schema}.end_workers(p_workers text[], p_state text default 'stopped')
returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
set enable_seqscan = off set jit = off as $fn$
begin
  if p_state is null or p_state not in ('stopping', 'stopped', 'lost') then
    raise exception using errcode = 'WF002',
      message = format('p_state: expected stopping, stopped or lost, got %s', coalesce(quote_literal(left(p_state, 60)), 'null'));
  end if;
  return query
  update {schema}.workflow_worker as worker
     set stopping_at = coalesce(worker.stopping_at, case when p_state <> 'lost' then clock_timestamp() end),
         stopped_at = case when p_state <> 'stopping' then clock_timestamp() end,
         held = case when p_state = 'stopping' then worker.held else 0 end,
         is_lost = p_state = 'lost'
   where worker.id = any (p_workers)
     and worker.stopped_at is null
     and (p_state <> 'stopping' or worker.stopping_at is null)
  returning worker.id::text;
end
$fn$;

-- ── who they are ───────────────────────────────────────────────────────────────────────────────────

-- The workers, those that run first, then by when they started, the newest first.  held is counted up to a hundred, from
-- there on it is what was last said.  holds: up to p_holds of the runs that each holds, those it has held longest first.
create function {schema}.list_workers(p_limit int default 500, p_holds int default 10)
returns table (id text, host text, pid int, runtime text, version text, patterns text[], concurrency int,
               beat_seconds double precision, started_at timestamptz, seen_at timestamptz, stopping_at timestamptz,
               stopped_at timestamptz, state text, held int, holds jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
#variable_conflict use_column
begin
  return query
  with listed as (
    select worker.*, {schema}.worker_state(worker) as state
      from {schema}.workflow_worker as worker)
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
                           from {schema}.workflow_run as run
                          where run.status = 'leased' and run.leased_by = listed.id
                          limit 100) as few) as run) as held
   order by array_position('{running,stopping,lost,stopped}', listed.state), listed.started_at desc, listed.id;
end
$fn$;

-- ── why ────────────────────────────────────────────────────────────────────────────────────────────

create type {schema}.explanation as (reason text, says text, remedy text, facts jsonb);

-- A length of time for people, in its two largest units.
create function {schema}.say_seconds(p_seconds double precision) returns text language sql immutable parallel safe
  return case when p_seconds < 0.95 then round((p_seconds * 1000)::numeric)::text || ' ms'
              when p_seconds < 9.95 then round(p_seconds::numeric, 1)::text || ' s'
              when p_seconds < 60 then floor(p_seconds)::text || ' s'
              when p_seconds < 3600 then floor(p_seconds / 60)::text || ' min ' || floor(p_seconds::numeric % 60)::text || ' s'
              when p_seconds < 86400 then floor(p_seconds / 3600)::text || ' h ' || floor(p_seconds::numeric % 3600 / 60)::text || ' min'
              else floor(p_seconds / 86400)::text || ' d ' || floor(p_seconds::numeric % 86400 / 3600)::text || ' h' end;

create function {schema}.say_ago(p_at timestamptz) returns text language sql stable
  return {schema}.say_seconds(greatest(0, extract(epoch from clock_timestamp() - p_at))::double precision) || ' ago';

-- So many of something: 1 worker, 2 workers, more than 10,000 due runs.
create function {schema}.say_count(p_count bigint, p_what text, p_is_exact boolean default true) returns text
  language sql immutable parallel safe
  return case when p_is_exact then '' else 'more than ' end || trim(to_char(p_count, '999,999,999,999')) || ' ' || p_what
         || case when p_count = 1 then '' else 's' end;

-- One line of an error, not long.
create function {schema}.say_error(p_error text) returns text language sql immutable parallel safe
  return left(regexp_replace(split_part(ltrim(p_error, E'\n'), E'\n', 1), '[[:cntrl:]]', ' ', 'g'), 200);

-- Who has locked or changed a run in a transaction that is still open: sessions by their pid, prepared transactions by
-- their name.  Of what it reads of the row, xmax, a reader has no right; it tells nothing about the run.
create function {schema}.open_transactions(p_id uuid) returns table (pid int, prepared text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $fn$
declare
  v_xmax xid := (select run.xmax from {schema}.workflow_run as run where run.id = p_id);
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
$fn$;

-- Why a run that has ended does not run.
create function {schema}.why_ended(p_run {schema}.workflow_run, p_shows_contents boolean) returns {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' set enable_seqscan = off as $fn$
declare
  v_is_used_up boolean := p_run.status = 'failed' and p_run.attempt >= p_run.max_attempts;
  v_cancel jsonb;
  v_canceller text;
  v_answer {schema}.explanation;
begin
  if p_run.status = 'cancelled' and p_shows_contents
     and has_column_privilege('{schema}.workflow_event', 'data', 'select') then
    select event.data into v_cancel
      from {schema}.workflow_event as event
     where event.workflow_id = p_run.id and event.event_type = 'cancelled'
     order by event.id desc
     limit 1;
    v_canceller := coalesce(v_cancel ->> 'on_behalf_of', v_cancel ->> 'by');
  end if;
  v_answer.reason := case when v_is_used_up then 'attempts_used_up' else 'ended' end;
  v_answer.says := format('it %s %s%s%s',
    case when p_run.status = 'cancelled' then 'was cancelled' else p_run.status end,
    {schema}.say_ago(p_run.finished_at),
    case when p_run.status = 'cancelled' then coalesce(' by ' || {schema}.say_error(v_canceller), '')
         else format(', with attempt %s of %s', p_run.attempt, p_run.max_attempts) end,
    coalesce(': ' || {schema}.say_error(case when p_run.status = 'failed' then p_run.last_error
                                             else v_cancel ->> 'reason' end), ''));
  v_answer.remedy := case
    when p_run.status = 'succeeded' then 'nothing to do; to do it again, submit another run'
    when p_run.deleted_at is not null then
      format('update {schema}.workflow_run set deleted_at = null where id = ''%s''; then wf run reopen %s', p_run.id, p_run.id)
    else format('wf run reopen %s', p_run.id) end;
  v_answer.facts := jsonb_build_object(
    'status', p_run.status, 'finished_at', p_run.finished_at, 'attempt', p_run.attempt,
    'max_attempts', p_run.max_attempts, 'last_error', p_run.last_error, 'cancelled_by', v_canceller,
    'cancel_reason', v_cancel -> 'reason', 'hidden_at', p_run.deleted_at);
  return v_answer;
end
$fn$;

-- Why a leased run is not run by another; most often because it runs.
create function {schema}.why_leased(p_run {schema}.workflow_run) returns {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' set enable_seqscan = off as $fn$
declare
  v_left double precision := extract(epoch from p_run.lease_until - clock_timestamp());
  v_worker {schema}.workflow_worker;
  v_state text;
  v_is_anybody_alive boolean;
  v_answer {schema}.explanation;
begin
  select worker.* into v_worker from {schema}.workflow_worker as worker where worker.id = p_run.leased_by;
  v_state := case when found then {schema}.worker_state(v_worker) end;
  v_answer.facts := jsonb_build_object(
    'worker', p_run.leased_by, 'worker_state', v_state, 'worker_seen_at', v_worker.seen_at,
    'leased_at', p_run.updated_at, 'lease_until', p_run.lease_until, 'attempt', p_run.attempt,
    'max_attempts', p_run.max_attempts, 'fencing_token', p_run.fencing_token, 'is_suspect', p_run.is_suspect);
  if v_left < 0 then
    v_is_anybody_alive := exists (select from {schema}.workflow_worker as worker
                                   where worker.stopped_at is null and {schema}.worker_state(worker) = 'running');
    v_answer.reason := 'lapsed';
    v_answer.says := format('the lease of worker %s lapsed %s, and nobody has expired it yet',
                            p_run.leased_by, {schema}.say_ago(p_run.lease_until));
    v_answer.remedy := case when v_is_anybody_alive then 'wait: any worker that runs expires it within five seconds'
                            else 'start a worker: wf worker MODULE:WORKER; any one expires it, of whatever type' end;
    return v_answer;
  end if;
  v_answer.reason := 'running';
  v_answer.says := format('worker %s has had it for %s, attempt %s of %s; its lease holds for %s more%s',
    p_run.leased_by, {schema}.say_seconds(greatest(0, extract(epoch from clock_timestamp() - p_run.updated_at))::double precision),
    p_run.attempt, p_run.max_attempts, {schema}.say_seconds(v_left),
    case when v_state = 'lost' then format('; that worker was last seen %s', {schema}.say_ago(v_worker.seen_at)) else '' end);
  v_answer.remedy := case when v_state = 'lost' then 'wait: when its lease ends, another worker takes it'
                          else format('nothing to do; wf run cancel %s stops it', p_run.id) end;
  return v_answer;
end
$fn$;

-- How many due runs are claimed before a pending one that is due: those of its own lane before it, and those of a better
-- priority of whatever type the patterns cover.  Types of one priority take turns, and are not counted.  It looks at 100
-- lanes and counts to p_at_most; beyond, it is not exact.
create function {schema}.line_before(
  p_run {schema}.workflow_run, p_patterns text[], p_at_most int, out same_lane bigint, out better_priority bigint, out is_exact boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set plan_cache_mode = force_generic_plan as $fn$
declare
  v_now timestamptz := clock_timestamp();
  v_disabled text[] := (select array_agg(workflow_name) from {schema}.workflow_registry where not is_enabled);
  v_looks int := 100;
  v_range record;
  v_lane record;
  v_from text collate "C" := '';
begin
  better_priority := 0;
  select count(*) into same_lane
    from (select from {schema}.workflow_run as run
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
        from {schema}.workflow_run as run
       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
         and run.type >= v_from and run.type < v_range.high
       order by run.type, run.priority, run.run_at
       limit 1;
      exit when not found;
      v_from := v_lane.type || '!';
      continue when {schema}.covers(v_disabled, v_lane.type);
      while v_lane.priority < p_run.priority and v_looks > 0 and same_lane + better_priority <= p_at_most loop
        better_priority := better_priority + (
          select count(*)
            from (select from {schema}.workflow_run as run
                   where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                     and run.type = v_lane.type and run.priority = v_lane.priority and run.run_at <= v_now
                   order by run.run_at
                   limit p_at_most + 1 - same_lane - better_priority) as run);
        v_looks := v_looks - 1;
        select run.type, run.priority into v_lane
          from {schema}.workflow_run as run
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
$fn$;

-- Why a pending run that nothing holds back is not claimed: it is a suspect, or waits for a place, or is next.
create function {schema}.why_in_line(p_run {schema}.workflow_run) returns {schema}.explanation
language plpgsql stable
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
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
  v_answer {schema}.explanation;
begin
  select count(*) as count, array_agg(worker.id order by worker.held - worker.concurrency, worker.id) as ids
    into v_workers
    from {schema}.workflow_worker as worker
   where worker.stopped_at is null and {schema}.worker_state(worker) = 'running'
     and {schema}.covers(worker.patterns, p_run.type);
  -- What they hold: counted for those that had most room when they were seen, as last said for the others.
  select sum(worker.concurrency), sum(counted.held), count(*) filter (where counted.held = 0)
    into v_places, v_held, v_idle
    from unnest(v_workers.ids) with ordinality as named (id, position)
    join {schema}.workflow_worker as worker on worker.id = named.id
   cross join lateral (
         select case when named.position > c_looked_into_at_most or worker.concurrency > 1000 then worker.held
                     else (select count(*)::int
                             from (select from {schema}.workflow_run as run
                                    where run.status = 'leased' and run.leased_by = named.id
                                    limit 1000) as run) end as held) as counted;
  v_who := {schema}.say_count(v_workers.count, 'worker');
  v_answer.facts := jsonb_build_object(
    'run_at', p_run.run_at, 'priority', p_run.priority, 'workers', v_workers.count, 'places', v_places,
    'places_taken', v_held, 'attempt', p_run.attempt, 'max_attempts', p_run.max_attempts);

  if p_run.is_suspect then
    select count(*) into v_suspects_before
      from (select from {schema}.workflow_run as run
             where run.status = 'pending' and run.deleted_at is null and run.is_suspect
               and (run.run_at, run.id) < (p_run.run_at, p_run.id)
             limit c_counted_at_most) as run;
    v_answer.reason := 'suspect';
    v_answer.says := format(
      'its last attempts ended with the death of their worker, so it is run alone: it waits for a worker that holds nothing;'
      ' %s for its type, %s of them without any run now%s',
      v_who, v_idle,
      case when v_suspects_before > 0 then format(', and %s before it', {schema}.say_count(v_suspects_before, 'suspect')) else '' end);
    v_answer.remedy := case when v_idle > 0 then 'nothing to do: one of them takes it; if it kills that one too, cancel it'
                            else 'start another worker, or wait: within seconds one of them empties itself for it' end;
    v_answer.facts := v_answer.facts || jsonb_build_object(
      'crashes', p_run.crashes, 'last_error', p_run.last_error, 'workers_idle', v_idle, 'suspects_before', v_suspects_before);
    return v_answer;
  end if;

  select * into v_line
    from {schema}.line_before(
           p_run,
           array(select distinct pattern
                   from {schema}.workflow_worker as worker, unnest(worker.patterns) as pattern
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
      {schema}.worker_not_entered(p_run.type), {schema}.say_count(v_before, 'due run', v_line.is_exact));
    v_answer.remedy := 'wait; let that worker call register_worker and beat_workers: see the SQL contract';
  elsif v_before >= v_places - v_held or not v_line.is_exact then
    v_answer.reason := 'workers_busy';
    v_answer.says := format('%s for its type at %s, %s taken; %s before it%s',
      {schema}.say_count(v_places, 'place'), v_who, case when v_held >= v_places then 'all' else v_held::text end,
      {schema}.say_count(v_before, 'due run', v_line.is_exact) || case when v_before = 1 then ' comes' else ' come' end,
      case when v_line.better_priority > 0 then format(', %s of them of a better priority', v_line.better_priority) else '' end);
    v_answer.remedy :=
      'wait, or raise --processes or --concurrency of wf worker, or start workers on more hosts; a lower priority comes first';
  else
    v_answer.reason := 'next';
    v_answer.says := format('it has been due for %s, and %s with %s %s about to take it%s',
      {schema}.say_seconds(v_due_seconds), v_who, {schema}.say_count(v_places - v_held, 'free place'),
      case when v_workers.count = 1 then 'is' else 'are' end,
      case when v_before > 0 then format('; %s before it', {schema}.say_count(v_before, 'due run')) else '' end);
    v_answer.remedy := case when v_due_seconds < 15 then 'nothing to do'
                            else 'look at the log of worker ' || v_workers.ids[1] || ': its claims may fail' end;
    v_answer.facts := v_answer.facts || jsonb_build_object('worker', v_workers.ids[1]);
  end if;
  return v_answer;
end
$fn$;

-- A worker that holds runs of a type, but is not in the table: of another language, or without the right.  It looks at
-- the first ten thousand leased runs.
create function {schema}.worker_not_entered(p_type text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select leased.leased_by
    from (select run.type, run.leased_by, run.lease_until
            from {schema}.workflow_run as run where run.status = 'leased' limit 10000) as leased
   where leased.type = p_type and leased.lease_until > clock_timestamp()
     and not exists (select from {schema}.workflow_worker as worker where worker.id = leased.leased_by)
   limit 1
$fn$;

-- Why nobody will claim runs of a type, although nothing else holds them back; null: somebody will.
create function {schema}.why_no_worker(p_type text) returns {schema}.explanation
language plpgsql stable
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
declare
  v_last {schema}.workflow_worker;
  v_known {schema}.workflow_registry;
  v_answer {schema}.explanation;
begin
  if exists (select from {schema}.workflow_worker as worker
              where worker.stopped_at is null and {schema}.worker_state(worker) = 'running'
                and {schema}.covers(worker.patterns, p_type))
     or {schema}.worker_not_entered(p_type) is not null then
    return null;
  end if;
  select worker.* into v_last
    from {schema}.workflow_worker as worker
   where {schema}.covers(worker.patterns, p_type)
   order by coalesce(worker.stopped_at, worker.seen_at) desc
   limit 1;
  select known.* into v_known
    from {schema}.workflow_registry as known
   where {schema}.covers(array[known.workflow_name::text], p_type)
   order by right(known.workflow_name, 1) = '%', length(known.workflow_name) desc
   limit 1;
  v_answer.reason := 'no_worker';
  v_answer.says := 'no worker that runs handles its type; ' || case
    when v_last.id is not null then format('the last that did, %s, %s', v_last.id,
      case {schema}.worker_state(v_last)
        when 'stopped' then 'stopped ' || {schema}.say_ago(v_last.stopped_at)
        when 'stopping' then 'has been stopping for ' || {schema}.say_seconds(extract(epoch from clock_timestamp() - v_last.stopping_at)::double precision)
        else 'was lost; it was last seen ' || {schema}.say_ago(v_last.seen_at) end)
    when v_known.workflow_name is not null then format('a %s worker for %s was first started %s', v_known.runtime,
      v_known.workflow_name, {schema}.say_ago(v_known.created_at))
    else 'none ever has' end;
  v_answer.remedy := case when v_last.id is not null or v_known.workflow_name is not null
      then 'start a worker that handles ' || p_type || ': wf worker MODULE:WORKER'
      else 'start a worker with a handler for ' || p_type || ', or cancel the run if its type is a mistake' end;
  v_answer.facts := jsonb_build_object(
    'last_worker', v_last.id, 'last_state', case when v_last.id is not null then {schema}.worker_state(v_last) end,
    'last_seen_at', v_last.seen_at, 'last_stopped_at', v_last.stopped_at, 'registered_as', v_known.workflow_name,
    'runtime', v_known.runtime);
  return v_answer;
end
$fn$;

-- Why a type is not claimed by anybody: an operator has paused it; null: it is not paused.
create function {schema}.why_paused(p_type text) returns {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $fn$
declare
  v_answer {schema}.explanation;
begin
  select 'paused',
         string_agg(format('%s has been paused for %s%s%s', pause.pattern,
                           {schema}.say_seconds(greatest(0, extract(epoch from clock_timestamp() - pause.paused_at))::double precision),
                           coalesce(' by ' || coalesce(pause.paused_for, pause.paused_by), ''),
                           coalesce(': ' || {schema}.say_error(pause.reason), '')), '; ' order by pause.position),
         string_agg(format('wf type resume %L', pause.pattern), '; ' order by pause.position),
         jsonb_build_object('pauses', jsonb_agg(jsonb_build_object(
           'pattern', pause.pattern, 'paused_at', pause.paused_at, 'paused_by', pause.paused_by,
           'paused_for', pause.paused_for, 'reason', pause.reason) order by pause.position))
    into v_answer
    from (select one.*, row_number() over (order by right(one.pattern, 1) = '%', length(one.pattern) desc) as position
            from {schema}.list_pauses() as one
           where {schema}.covers(array[one.pattern], p_type)) as pause
  having count(*) > 0;
  return v_answer;
end
$fn$;

-- Why a pending run cannot be claimed although it is due: a transaction that is still open has it; null: none has.  Claims
-- pass over such a run.  Transactions of less than a second are most likely claims.
create function {schema}.why_locked(p_id uuid) returns {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $fn$
declare
  v_open record;
  v_is_old boolean := false;
  v_answer {schema}.explanation;
begin
  for v_look in 1..2 loop
    select open.pid, open.prepared, session.usename, session.xact_start, session.state into v_open
      from {schema}.open_transactions(p_id) as open
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
                coalesce(', ' || coalesce(v_open.state, '') || ' for ' || {schema}.say_seconds(
                  extract(epoch from clock_timestamp() - v_open.xact_start)::double precision), '')) end;
  v_answer.remedy := case when v_open.prepared is not null then format('commit prepared %L, or rollback prepared %1$L', v_open.prepared)
                          else format('let it commit or roll back; else: select pg_terminate_backend(%s)', v_open.pid) end;
  v_answer.facts := jsonb_build_object('pid', v_open.pid, 'role', v_open.usename, 'state', v_open.state,
                                       'since', v_open.xact_start, 'prepared', v_open.prepared);
  return v_answer;
end
$fn$;

-- Why a pending run is not claimed: the first of what stands in its way.
create function {schema}.why_pending(p_run {schema}.workflow_run) returns {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $fn$
declare
  v_now timestamptz := clock_timestamp();
  v_then {schema}.explanation;
  v_answer {schema}.explanation;
begin
  if p_run.deleted_at is not null then
    v_answer.reason := 'hidden';
    v_answer.says := format('it was hidden %s, so it is not claimed', {schema}.say_ago(p_run.deleted_at));
    v_answer.remedy := format('update {schema}.workflow_run set deleted_at = null where id = ''%s''', p_run.id);
    v_answer.facts := jsonb_build_object('hidden_at', p_run.deleted_at);
    return v_answer;
  end if;
  v_then := {schema}.why_paused(p_run.type);
  if v_then is null then
    v_then := {schema}.why_no_worker(p_run.type);
  end if;
  if p_run.run_at > v_now then
    v_answer.reason := 'due_later';
    v_answer.says := format('it is due in %s, at %s UTC%s%s',
      {schema}.say_seconds(extract(epoch from p_run.run_at - v_now)::double precision),
      to_char(p_run.run_at, 'YYYY-MM-DD HH24:MI:SS'),
      case when p_run.attempt > 0 then format(', for attempt %s of %s; the last ended with: %s', p_run.attempt + 1,
                                              p_run.max_attempts, coalesce({schema}.say_error(p_run.last_error), '?')) else '' end,
      coalesce('; but then: ' || v_then.says, ''));
    v_answer.remedy := format('wait, or: update {schema}.workflow_run set run_at = now() where id = ''%s''', p_run.id);
    v_answer.facts := jsonb_build_object('run_at', p_run.run_at, 'attempt', p_run.attempt, 'max_attempts', p_run.max_attempts,
                                         'last_error', p_run.last_error, 'then', v_then.reason);
    return v_answer;
  end if;
  if v_then is null then
    v_then := {schema}.why_locked(p_run.id);
  end if;
  return case when v_then is null then {schema}.why_in_line(p_run) else v_then end;
end
$fn$;

-- The one reason that a run is not running now, in a word that stays, in a sentence, with what to do, and the figures; no
-- row where there is no such run.  With the caller's own rights: whoever reads no errors is told none, nor is who asks
-- for somebody who may not (p_shows_contents false).
create function {schema}.why(p_id uuid, p_shows_contents boolean default true)
returns setof {schema}.explanation
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_run {schema}.workflow_run;
  v_answer {schema}.explanation;
begin
  select * into v_run from {schema}.get_runs(array[p_id]);
  if not found then
    return;
  elsif not p_shows_contents then
    v_run.last_error := null;
  end if;
  v_answer := case
    when v_run.finished_at is not null then {schema}.why_ended(v_run, p_shows_contents)
    when v_run.status = 'leased' then {schema}.why_leased(v_run)
    when v_run.status = 'pending' then {schema}.why_pending(v_run)
    else row('waiting', format('it has been waiting for %s', {schema}.say_seconds(
                          greatest(0, extract(epoch from clock_timestamp() - v_run.updated_at))::double precision)),
             format('wf run cancel %s ends it', v_run.id), jsonb_build_object('since', v_run.updated_at))::{schema}.explanation end;
  v_answer.facts := jsonb_build_object('status', v_run.status, 'type', v_run.type) || v_answer.facts;
  return next v_answer;
end
$fn$;

revoke execute on function
  {schema}.register_worker, {schema}.beat_workers, {schema}.end_workers, {schema}.open_transactions
  from public;
