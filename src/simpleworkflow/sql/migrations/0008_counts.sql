-- Exact counts of runs, by type and status, that nobody has to count.
--
-- Each statement that changes runs leaves deltas: so many runs of a type went from one status to another.  What they
-- come to is folded in the background; what is read is the folded and the unfolded together, in one snapshot, and
-- therefore what select count(*) says, at any moment.  A counter row that each statement updates instead would make
-- all of them wait for each other (a peer: 9.5k to 0.6k/s).
--
-- Hidden runs (deleted_at) are not counted.  What a superuser changes with triggers switched off is counted by recount.

-- ── the tables, beside workflow_delta ──────────────────────────────────────────────────────────────

create table {schema}.workflow_count (
  type   text   collate "C" not null,
  status text   not null,
  runs   bigint not null,
  constraint workflow_count_pkey primary key (type, status)
);

comment on table {schema}.workflow_count is
  'How many runs there were at the last fold; workflow_delta has what came since, and the function counts both together.';

-- How often what happened, in steps of 10 seconds for an hour, of a minute for a day, of an hour for 30 days; type ''
-- is all types together.
create table {schema}.workflow_rate (
  step_seconds int         not null,
  at           timestamptz not null,
  type         text        collate "C" not null,
  submitted    bigint      not null,
  claimed      bigint      not null,
  succeeded    bigint      not null,
  failed       bigint      not null,
  retried      bigint      not null,
  cancelled    bigint      not null,
  expired      bigint      not null,
  constraint workflow_rate_pkey primary key (step_seconds, at, type)
);

comment on table {schema}.workflow_rate is
  'How many runs were submitted, claimed ... in the step_seconds from "at" on, as far as they are folded; type '''': of all.';

-- How far is folded: what transactions before from_xid have left, but for those that were open then.  One row, which
-- whoever folds has locked.
create table {schema}.workflow_fold (
  is_only      boolean     not null default true,
  from_xid     xid8        not null default '0',
  open_xids    xid8[]      not null default '{}',
  -- Of which server these are: a dump brings them to another one, which counts its transactions by itself.
  server_id    bigint,
  folded_at    timestamptz not null default '-infinity',
  forgotten_at timestamptz not null default '-infinity',
  recounted_at timestamptz,
  constraint workflow_fold_pkey primary key (is_only),
  constraint workflow_fold_only check (is_only)
);

comment on table {schema}.workflow_fold is 'How far workflow_delta is folded into workflow_count and workflow_rate.';

insert into {schema}.workflow_fold (is_only) values (true);

-- Written at each fold.
alter table {schema}.workflow_count set (fillfactor = 50);
alter table {schema}.workflow_rate set (fillfactor = 70);

-- ── what leaves deltas ─────────────────────────────────────────────────────────────────────────────

-- Inserts and updates are counted by audit_insert and audit_update, beside their events.

-- Runs that prune deletes, and those that a policy deletes when they succeed.
create function {schema}.count_deletion() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
begin
  insert into {schema}.workflow_delta (runs, type, from_status, event_type)
  select count(*), run.type, run.status,
         case when current_setting('workflow.transition', true) = 'finish' then 'succeeded' end
    from old_runs as run
   where run.deleted_at is null
   group by run.type, run.status;
  return null;
end
$fn$;

create trigger count_deletion after delete on {schema}.workflow_run
  referencing old table as old_runs
  for each statement execute function {schema}.count_deletion();

-- ── fold ───────────────────────────────────────────────────────────────────────────────────────────

-- What is not folded yet, to this statement's snapshot.  Found by the transactions that left it: what lies before has
-- been deleted by a fold, and under a snapshot that somebody holds its dead entries would be walked over by everybody.
-- In a copy of the data on another server, which has other transactions, everything is looked at until the first fold.
create function {schema}.unfolded() returns setof {schema}.workflow_delta
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $fn$
declare
  v_from xid8;
  v_open xid8[];
begin
  select case when fold.server_id = server.system_identifier then fold.from_xid else '0' end, fold.open_xids
    into v_from, v_open
    from {schema}.workflow_fold as fold cross join pg_control_system() as server;
  return query
  select delta.xid, delta.created_at, delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type
    from {schema}.workflow_delta as delta
   where delta.xid >= v_from;
  return query
  select delta.xid, delta.created_at, delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type
    from {schema}.workflow_delta as delta
   where delta.xid = any (v_open) and delta.xid < v_from;
end
$fn$;

-- Whether more than p_rows are not folded: then a reader had better fold first.  (200 types: stats takes 11 ms with 3,000
-- unfolded, 117 ms with 45,000; a fold of 10,000 takes 35 ms.)
create function {schema}.is_behind(p_rows int default 10000) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
begin
  return p_rows < (
    select count(*)
      from (select
              from {schema}.workflow_delta as delta
             where delta.xid >= (select case when fold.server_id = server.system_identifier then fold.from_xid else '0' end
                                   from {schema}.workflow_fold as fold cross join pg_control_system() as server)
             limit p_rows + 1) as unfolded);
end
$fn$;

-- Sum up to p_limit deltas, delete them, and return how many that were; null when somebody else is at it, or was within
-- p_pause_seconds.  However many call it at once, and whenever one is killed, each delta is summed once.
create function {schema}.fold(p_limit int default 10000, p_pause_seconds double precision default 0) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
declare
  v_now timestamptz := clock_timestamp();
  v_fold {schema}.workflow_fold;
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
  if v_now < (select fold.folded_at from {schema}.workflow_fold as fold) + make_interval(secs => p_pause_seconds) then
    return null;
  elsif not exists (select from {schema}.unfolded()) then
    return 0;
  end if;
  select fold.from_xid, fold.open_xids, fold.server_id, fold.forgotten_at into
         v_fold.from_xid, v_fold.open_xids, v_fold.server_id, v_fold.forgotten_at
    from {schema}.workflow_fold as fold
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
               from {schema}.workflow_delta as delta
              where delta.xid = any (v_fold.open_xids) and delta.xid < v_fold.from_xid
              order by delta.xid
              limit p_limit)
            union all
            (select delta.ctid, delta.xid
               from {schema}.workflow_delta as delta
              where delta.xid >= v_fold.from_xid
              order by delta.xid
              limit p_limit)) as delta
     order by delta.xid
     limit p_limit),
  folded as (
    delete from {schema}.workflow_delta as delta
     where delta.ctid = any (array(select unfolded.place from unfolded))
    returning delta.runs, delta.type, delta.from_status, delta.to_status, delta.event_type, delta.created_at),
  counted as (
    insert into {schema}.workflow_count as known (type, status, runs)
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
    insert into {schema}.workflow_rate as known
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
  update {schema}.workflow_fold as fold
     set from_xid = v_from, folded_at = v_now,
         -- What a copy brought along is looked at until all of it is folded: its transactions are not this server's.
         server_id = case when v_is_partial and v_fold.server_id is distinct from v_server_id then v_fold.server_id
                          else v_server_id end,
         open_xids = array(select distinct left_by.xid
                             from unnest(v_going_on || case when v_is_partial then v_fold.open_xids end) as left_by (xid)
                            where left_by.xid < v_from
                              and (left_by.xid = any (v_going_on) or left_by.xid >= v_last));
  if v_now > v_fold.forgotten_at + interval '1 minute' then
    perform {schema}.forget_rates(v_fold.forgotten_at, v_now);
  end if;
  return v_folded;
end
$fn$;

-- Delete the rates that nobody asks for any more, from where the last call ended, and the counts of types that are gone.
create function {schema}.forget_rates(p_forgotten_at timestamptz, p_now timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $fn$
begin
  delete from {schema}.workflow_rate as rate
   using (values (10, interval '1 hour'), (60, '1 day'), (3600, '30 days')) as step (seconds, kept)
   where rate.step_seconds = step.seconds
     and rate.at >= p_forgotten_at - step.kept - interval '1 hour'
     and rate.at < p_now - step.kept - interval '1 hour';
  delete from {schema}.workflow_count as known where known.runs = 0;
  update {schema}.workflow_fold as fold set forgotten_at = p_now;
end
$fn$;

-- ── read ───────────────────────────────────────────────────────────────────────────────────────────

-- How many runs there are of each type and status, hidden ones not counted: what select count(*) says in this snapshot.
create function {schema}.counts() returns table (type text, status text, runs bigint)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select counted.type, counted.status, sum(counted.runs)::bigint
    from (select known.type, known.status, known.runs from {schema}.workflow_count as known
          union all
          select moved.type, moved.status, moved.runs
            from {schema}.unfolded() as delta
           cross join lateral (values (delta.type, delta.to_status, delta.runs),
                                      (delta.type, delta.from_status, - delta.runs)) as moved (type, status, runs)
           where moved.status is not null) as counted
   group by counted.type, counted.status
  having sum(counted.runs) <> 0
$fn$;

-- What was counted wrongly, against the runs themselves; the table is read whole.
create function {schema}.miscounts() returns table (type text, status text, runs bigint, counted bigint)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $fn$
  select coalesce(present.type, known.type), coalesce(present.status, known.status),
         coalesce(present.runs, 0), coalesce(known.runs, 0)
    from (select run.type::text, run.status, count(*) as runs
            from {schema}.workflow_run as run
           where run.deleted_at is null
           group by run.type, run.status) as present
    full join {schema}.counts() as known on known.type = present.type and known.status = present.status
   where coalesce(present.runs, 0) <> coalesce(known.runs, 0)
$fn$;

-- Put right what was counted wrongly, after somebody has changed runs with the triggers switched off; return how many
-- counts that were.  Nobody has to wait: what is missing in one snapshot is missing in all later ones, and becomes a delta.
create function {schema}.recount() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_corrected bigint;
begin
  -- One after the other.  Written, so that one with an older snapshot is refused and does not correct twice.
  update {schema}.workflow_fold as fold set recounted_at = clock_timestamp();
  insert into {schema}.workflow_delta (runs, type, to_status)
  select miscount.runs - miscount.counted, miscount.type, miscount.status from {schema}.miscounts() as miscount;
  get diagnostics v_corrected = row_count;
  return v_corrected;
end
$fn$;

-- What happened since p_from, in steps; of each type, or of all together as type ''.
create function {schema}.rates_since(p_from timestamptz, p_step_seconds int, p_by_type boolean)
returns table (at timestamptz, type text, submitted bigint, claimed bigint, succeeded bigint, failed bigint,
               retried bigint, cancelled bigint, expired bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $fn$
#variable_conflict use_column
begin
  return query
  select happened.at, happened.type, sum(happened.submitted)::bigint, sum(happened.claimed)::bigint,
         sum(happened.succeeded)::bigint, sum(happened.failed)::bigint, sum(happened.retried)::bigint,
         sum(happened.cancelled)::bigint, sum(happened.expired)::bigint
    from (select rate.at, rate.type::text, rate.submitted, rate.claimed, rate.succeeded, rate.failed, rate.retried,
                 rate.cancelled, rate.expired
            from {schema}.workflow_rate as rate
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
            from {schema}.unfolded() as delta
           where delta.event_type is not null and delta.created_at >= p_from) as happened
   group by happened.at, happened.type;
end
$fn$;

create function {schema}.check_window(p_window_seconds double precision) returns void language plpgsql
  set search_path = pg_catalog, pg_temp as $fn$
begin
  if (p_window_seconds between 10 and 2592000) is not true then
    raise exception using errcode = 'WF002',
      message = format('window_seconds: expected 10 to 2592000, which is 30 days, got %s',
                       coalesce(p_window_seconds::text, 'null'));
  end if;
end
$fn$;

-- Of each lane: its oldest due run, how many are due, and how many later; null where p_looks, all in all, did not do.
-- One row without a type where there are more than p_lanes, or it took longer than p_seconds: it stopped there.
create function {schema}.look_into_lanes(
  p_lanes int default 1000, p_looks int default 5000, p_seconds double precision default 0.02)
returns table (type text, priority int, oldest_due_at timestamptz, due bigint, later bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set plan_cache_mode = force_generic_plan as $fn$
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
      from {schema}.workflow_run as run
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
                from (select from {schema}.workflow_run as run
                       where run.status = 'pending' and run.deleted_at is null and not run.is_suspect
                         and run.type = v_type and run.priority = v_priority
                         and run.run_at >= v_run_at and run.run_at <= v_now
                       order by run.run_at
                       limit v_due_left) as run);
      v_due_left := v_due_left - due;
    end if;
    if v_later_left > 0 then
      later := (select count(*)
                  from (select from {schema}.workflow_run as run
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
            from {schema}.workflow_run as run
           where run.status = 'pending' and run.deleted_at is null and run.is_suspect
           order by run.run_at
           limit p_looks) as run
   group by run.type;
end
$fn$;

-- What is due of each type, as stats and types take it.  While runs flow this costs more than all else that they do:
-- every run that was claimed since the last vacuum is an entry to pass.  (33,000 runs/s: 40 to 160 ms.)  Whoever asks
-- often looks seldom, and hands in what it found.
create function {schema}.look_due() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select coalesce(jsonb_agg(to_jsonb(lanes)), '[]')
    from (select lane.type, min(lane.oldest_due_at) as oldest_due_at,
                 case when bool_and(lane.due is not null) then sum(lane.due) end as due,
                 case when bool_and(lane.later is not null) then sum(lane.later) end as later
            from {schema}.look_into_lanes() as lane
           group by lane.type) as lanes
$fn$;

-- Counts, rates and what is due, of all types together, in one row; null counts where too much is unfolded: fold first.
-- p_due: what look_due has found; null: look now.
create function {schema}.stats(
  p_window_seconds double precision default 300,
  p_due jsonb default null,
  out runs jsonb, out rates jsonb, out oldest_due_seconds double precision, out due bigint, out due_is_exact boolean,
  out step_seconds int, out series jsonb, out at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $fn$
#variable_conflict use_column
declare
  v_from timestamptz;
begin
  perform {schema}.check_window(p_window_seconds);
  at := clock_timestamp();
  if {schema}.is_behind() then
    return;
  end if;
  select jsonb_object_agg(named.status, coalesce(counted.runs, 0)) into runs
    from unnest('{pending,leased,waiting,succeeded,failed,cancelled}'::text[]) as named (status)
    left join (select counts.status, sum(counts.runs) as runs from {schema}.counts() group by counts.status) as counted
           on counted.status = named.status;
  step_seconds := case when p_window_seconds <= 3600 then 10 when p_window_seconds <= 21600 then 60 else 3600 end;
  v_from := date_bin(make_interval(secs => step_seconds), at - make_interval(secs => p_window_seconds), 'epoch');
  with happened as materialized (
    select since.at, since.submitted, since.claimed, since.succeeded, since.failed, since.retried, since.cancelled,
           since.expired
      from {schema}.rates_since(v_from, step_seconds, false) as since),
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
    from jsonb_to_recordset(coalesce(p_due, {schema}.look_due()))
         as lane (type text, oldest_due_at timestamptz, due bigint, later bigint);
  if (runs ->> 'pending')::bigint = 0 then
    due := 0;
    oldest_due_seconds := null;
  end if;
  due_is_exact := due is not null;
end
$fn$;

-- How long runs that ended in the window waited, and ran: of the newest p_runs; where there are more, of p_runs spread
-- over the window.  wait_seconds: from when it was due to its claim, of runs that were claimed once; run_seconds: from
-- its last claim to its end.  Runs that keep no events are not among them.
create function {schema}.sample_ended(p_window_seconds double precision, p_runs int default 500)
returns table (type text, wait_seconds double precision, run_seconds double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = on set enable_hashjoin = off
set enable_mergejoin = off set jit = off set plan_cache_mode = force_generic_plan as $fn$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_from timestamptz := v_now - make_interval(secs => p_window_seconds);
  v_parts int := 50;
  v_ids uuid[];
begin
  v_ids := array(
    select run.id
      from {schema}.workflow_run as run
     where run.finished_at >= v_from and run.finished_at is not null
     order by run.finished_at desc
     limit p_runs);
  if cardinality(v_ids) = p_runs then
    v_ids := array(
      select run.id
        from generate_series(0, v_parts - 1) as part
       cross join lateral (
             select run.id
               from {schema}.workflow_run as run
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
           from {schema}.workflow_run as run
          where run.id = wanted.id and run.status in ('succeeded', 'failed') and run.deleted_at is null
          limit 1) as run
   cross join lateral (
         -- The last claim: not far from the end, unless there were many heartbeats.
         select event.created_at as at
           from (select event.event_type, event.created_at, event.id
                   from {schema}.workflow_event as event
                  where event.workflow_id = wanted.id
                  order by event.id desc
                  limit 20) as event
          where event.event_type = 'leased'
          order by event.id desc
          limit 1) as claimed;
end
$fn$;

-- One row for each type that has runs, had some in the window, or is handled by name; a single one without a type where
-- too much is unfolded (is_behind): fold first.  p_due: as for stats.  Percentiles are those of sample_ended.
create function {schema}.types(p_window_seconds double precision default 300, p_due jsonb default null)
returns table (type text, runs jsonb, rates jsonb, oldest_due_seconds double precision, is_enabled boolean,
               disabled_by text, handled_by text, runtime text, description text, wait jsonb, run jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_nestloop = on set jit = off as $fn$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_step int := case when p_window_seconds <= 600 then 10 when p_window_seconds <= 7200 then 60 else 3600 end;
  v_from timestamptz;
  v_seconds double precision;
begin
  perform {schema}.check_window(p_window_seconds);
  if {schema}.is_behind() then
    return next;
    return;
  end if;
  v_from := date_bin(make_interval(secs => v_step), v_now - make_interval(secs => p_window_seconds), 'epoch');
  v_seconds := extract(epoch from v_now - v_from);
  return query
  with counted as (
    select counts.type, jsonb_object_agg(counts.status, counts.runs) as runs
      from {schema}.counts() group by counts.type),
  rated as (
    select since.type,
           jsonb_build_object(
             'submitted', sum(since.submitted) / v_seconds, 'claimed', sum(since.claimed) / v_seconds,
             'succeeded', sum(since.succeeded) / v_seconds, 'failed', sum(since.failed) / v_seconds,
             'retried', sum(since.retried) / v_seconds, 'cancelled', sum(since.cancelled) / v_seconds,
             'expired', sum(since.expired) / v_seconds) as rates
      from {schema}.rates_since(v_from, v_step, true) as since group by since.type),
  due as (
    select lane.type, lane.oldest_due_at
      from jsonb_to_recordset(coalesce(p_due, {schema}.look_due())) as lane (type text, oldest_due_at timestamptz)
     where lane.type is not null),
  sampled as (
    select sample.type,
           jsonb_build_object('count', count(sample.wait_seconds), 'seconds',
             percentile_cont('{0.5,0.95,0.99}'::double precision[]) within group (order by sample.wait_seconds)) as wait,
           jsonb_build_object('count', count(sample.run_seconds), 'seconds',
             percentile_cont('{0.5,0.95,0.99}'::double precision[]) within group (order by sample.run_seconds)) as run
      from {schema}.sample_ended(p_window_seconds) as sample group by sample.type),
  named as (
    select counted.type from counted
     union
    select rated.type from rated
     union
    select known.workflow_name::text from {schema}.workflow_registry as known
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
    left join {schema}.workflow_registry as registered on registered.workflow_name = named.type
    left join lateral (
         select known.workflow_name
           from {schema}.workflow_registry as known
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
                   from {schema}.workflow_registry as known
                  where right(known.workflow_name, 1) = '%' and known.runtime <> ''
                    and starts_with(named.type, left(known.workflow_name, -1))) as handlers
          order by right(handlers.workflow_name, 1) = '%', length(handlers.workflow_name) desc
          limit 1) as handler on true
   order by named.type;
end
$fn$;

-- ── pause, resume ──────────────────────────────────────────────────────────────────────────────────

-- Who has paused what, when and why, and who resumed it: history, as events and policies are.  Whether a pattern is
-- paused is what workflow_registry.is_enabled says.
create table {schema}.workflow_pause (
  id           bigint      generated always as identity,
  pattern      text        collate "C" not null,
  reason       text,
  paused_at    timestamptz not null default clock_timestamp(),
  paused_by    text        not null default session_user,
  paused_for   text        default {schema}.on_behalf_of(),
  resumed_at   timestamptz,
  resumed_by   text,
  resumed_for  text,
  constraint workflow_pause_pkey primary key (id),
  constraint workflow_pause_end check ((resumed_at is null) = (resumed_by is null))
);

create unique index workflow_pause_present on {schema}.workflow_pause (pattern) where resumed_at is null;

comment on table {schema}.workflow_pause is
  'When patterns were not claimed: who paused and resumed them, in whose name, and why.  Written whenever is_enabled changes.';

create trigger a_guard_change before insert or update or delete or truncate on {schema}.workflow_pause
  for each statement execute function {schema}.guard_history();

-- Whoever changes is_enabled, a plain UPDATE too, leaves it here, and wakes workers for what may be claimed again.
create function {schema}.audit_pause() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $fn$
declare
  v_transition text := coalesce(current_setting('workflow.transition', true), '');
  v_was_paused boolean := tg_op <> 'INSERT' and not old.is_enabled;
  v_is_paused boolean := tg_op <> 'DELETE' and not new.is_enabled;
  v_is_other boolean := tg_op = 'UPDATE' and new.workflow_name <> old.workflow_name;
begin
  perform set_config('workflow.transition', 'policy', true);
  if v_was_paused and (not v_is_paused or v_is_other) then
    update {schema}.workflow_pause as pause
       set resumed_at = clock_timestamp(), resumed_by = session_user,
           resumed_for = {schema}.on_behalf_of()
     where pause.pattern = old.workflow_name and pause.resumed_at is null;
    perform {schema}.wake(array[case when right(old.workflow_name, 1) = '%' then '%' else old.workflow_name end]);
  end if;
  if v_is_paused and (not v_was_paused or v_is_other) then
    insert into {schema}.workflow_pause (pattern, reason)
    values (new.workflow_name, case when v_transition = 'pause' then nullif(current_setting('workflow.detail'), '') end);
  end if;
  perform set_config('workflow.transition', v_transition, true);
  return null;
end
$fn$;

create trigger audit_pause after insert or update or delete on {schema}.workflow_registry
  for each row execute function {schema}.audit_pause();

-- Let no run that the pattern covers be claimed from now on; what is leased goes on.  Returns whether that changed anything.
create function {schema}.pause(p_pattern text, p_reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
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
  insert into {schema}.workflow_registry as known (workflow_name, runtime, is_enabled)
  values (p_pattern, '', false)
  on conflict (workflow_name) do update set is_enabled = false, updated_at = now() where known.is_enabled;
  v_changed := found;
  perform set_config('workflow.transition', '', true);
  return v_changed;
end
$fn$;

-- Let the runs of a paused pattern be claimed again, unless another pattern is paused that covers them; return whether
-- that changed anything.
create function {schema}.resume(p_pattern text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_changed boolean;
begin
  update {schema}.workflow_registry as known
     set is_enabled = true, updated_at = now()
   where known.workflow_name = p_pattern and not known.is_enabled;
  v_changed := found;
  delete from {schema}.workflow_registry as known
   where known.workflow_name = p_pattern and known.is_enabled and known.runtime = '' and known.description is null;
  return v_changed;
end
$fn$;

-- The patterns that are paused now; who did it is not known of what was disabled while the triggers were off.
create function {schema}.list_pauses()
returns table (pattern text, reason text, paused_at timestamptz, paused_by text, paused_for text)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select known.workflow_name::text, pause.reason, coalesce(pause.paused_at, known.updated_at), pause.paused_by, pause.paused_for
    from {schema}.workflow_registry as known
    left join {schema}.workflow_pause as pause on pause.pattern = known.workflow_name and pause.resumed_at is null
   where not known.is_enabled
   order by known.workflow_name
$fn$;

-- What is there already.
select {schema}.recount();

revoke execute on function
  {schema}.count_deletion, {schema}.fold, {schema}.forget_rates,
  {schema}.recount, {schema}.audit_pause, {schema}.pause, {schema}.resume
  from public;
