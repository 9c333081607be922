-- The tables: the public contract.  Columns are only ever added.
-- {schema} is filled in when the file is loaded; every name is qualified, so no search_path matters.
-- A function has its search_path fixed, or, where that would keep the planner from inlining it, a body without
-- quotes: its names are bound when it is made.

-- A time-ordered id (RFC 9562, version 7): loading 1.45 times and draining 1.7 times as fast as random ids
-- at a million rows.  PostgreSQL 18 has it built in; before, the milliseconds replace the first 48 bits of a
-- version 4 id, and two bits turn its version into 7.
do $do$
begin
  if current_setting('server_version_num')::int >= 180000 then
    create function {schema}.uuid7() returns uuid language sql volatile parallel safe
      return pg_catalog.uuidv7();
  else
    create function {schema}.uuid7() returns uuid language sql volatile parallel safe
      return encode(
        set_bit(set_bit(
          overlay(uuid_send(gen_random_uuid())
                  placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                  from 1 for 6),
          52, 1), 53, 1), 'hex')::uuid;
  end if;
end
$do$;

-- What was asked for comes first, what becomes of it last: an update then logs the second part alone, as long as the new
-- version is on the same page.
create table {schema}.workflow_run (
  id              uuid        not null default {schema}.uuid7(),
  type            text        collate "C" not null,
  payload         jsonb       not null default '{}',
  priority        int         not null default 100,
  run_at          timestamptz not null default now(),
  idempotency_key text        collate "C",
  max_attempts    int         not null default 3,
  created_at      timestamptz not null default now(),
  parent_id       uuid,
  deleted_at      timestamptz,
  -- The producer's span, as W3C Trace Context writes it; null where it had none.
  traceparent     text        collate "C",
  status          text        not null default 'pending',
  attempt         int         not null default 0,
  fencing_token   bigint      not null default 0,
  leased_by       text        collate "C",
  lease_until     timestamptz,
  updated_at      timestamptz not null default now(),
  finished_at     timestamptz,
  last_error      text,
  result          jsonb,
  -- Attempts in a row that ended with the death of a worker that held other runs too; whether the run may be why.
  crashes         int         not null default 0,
  is_suspect      boolean     not null default false,
  -- Set once, at the insert, by the policy of its type.  In the row, so that what a run leaves never changes during
  -- its life, whatever becomes of the policy, and whatever snapshot its producer had.
  keeps_events    boolean     not null default true,

  constraint workflow_run_pkey primary key (id),
  -- Not partial, although most keys are null: `on conflict (idempotency_key)` must find it.
  -- Its many nulls stand singly: in one list they were sorted and searched for each that came (1.5 of 29 microseconds of a
  -- drained run; the price is 36 bytes).
  constraint workflow_run_idempotency_key unique (idempotency_key) with (deduplicate_items = off),
  constraint workflow_run_status check (
    status in ('pending', 'leased', 'waiting', 'succeeded', 'failed', 'cancelled')),
  constraint workflow_run_lease check (
    (status = 'leased') = (leased_by is not null) and (leased_by is null) = (lease_until is null)),
  constraint workflow_run_attempts check (
    attempt >= 0 and attempt <= max_attempts and (status <> 'pending' or attempt < max_attempts)),
  constraint workflow_run_traceparent check (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
  constraint workflow_run_finished check (
    (status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null))
);

-- What a claim walks: one lane for each (type, priority), in the order of run_at.  With the id a place in a lane has a
-- name, also among runs that were recorded together.
create index workflow_run_lane on {schema}.workflow_run (type, priority, run_at, id)
  where status = 'pending' and deleted_at is null and not is_suspect;

-- The few that a claim takes one at a time (see claim).
create index workflow_run_suspect on {schema}.workflow_run (run_at)
  where status = 'pending' and deleted_at is null and is_suspect;

-- Expired leases are found among the leased.  lease_until is in no index, so that heartbeats stay HOT.
create index workflow_run_leased on {schema}.workflow_run (leased_by) where status = 'leased';

-- Where few runs come to, and which lists ask for, newest first.  No success and no claim touches it.
create index workflow_run_aside on {schema}.workflow_run (status, id) where status in ('waiting', 'failed', 'cancelled');

comment on table {schema}.workflow_run is
  'One row is one run: a recorded intent.  Insert (type, payload) to submit; update status to ''cancelled'' to cancel.';

-- No foreign key to the run: it would lock the run's row for each event.
create table {schema}.workflow_event (
  id          bigint      generated always as identity,
  workflow_id uuid        not null,
  event_type  text        not null,
  data        jsonb       not null default '{}',
  created_at  timestamptz not null default clock_timestamp(),
  constraint workflow_event_pkey primary key (workflow_id, id)
);

comment on table {schema}.workflow_event is
  'What happened to each run: one row for every change of status.  Within a run, id is the order.';

create table {schema}.workflow_schedule (
  id           uuid        not null default {schema}.uuid7(),
  type         text        collate "C" not null,
  payload      jsonb       not null default '{}',
  schedule     text        not null,
  timezone     text        not null default 'UTC',
  next_run_at  timestamptz,
  last_run_at  timestamptz,
  enabled      boolean     not null default true,
  priority     int         not null default 100,
  max_attempts int         not null default 3,
  created_at   timestamptz not null default now(),
  updated_at   timestamptz not null default now(),
  deleted_at   timestamptz,
  constraint workflow_schedule_pkey primary key (id)
);

comment on table {schema}.workflow_schedule is 'Recurring intents: a cron expression and the run it makes.';

create table {schema}.workflow_registry (
  workflow_name text        collate "C" not null,
  runtime       text        not null,
  is_enabled    boolean     not null default true,
  description   text,
  created_at    timestamptz not null default now(),
  updated_at    timestamptz not null default now(),
  constraint workflow_registry_pkey primary key (workflow_name)
);

create index workflow_registry_disabled on {schema}.workflow_registry (workflow_name) where not is_enabled;

comment on table {schema}.workflow_registry is
  'Which types (or prefixes ending in %) exist and which runtime serves them.  A disabled one is not claimed.';

-- Rows are history, as events are: a change ends the row that applies and adds another.
create table {schema}.workflow_policy (
  id              bigint      generated always as identity,
  pattern         text        collate "C" not null,
  keeps_events    boolean     not null,
  keeps_succeeded boolean     not null,
  applies_from    timestamptz not null default clock_timestamp(),
  applies_until   timestamptz,
  set_by          text        not null default session_user,
  ended_by        text,
  constraint workflow_policy_pkey primary key (id),
  constraint workflow_policy_pattern check (
    length(pattern) <= 200 and pattern ~ '^([A-Za-z0-9_.-]+%?|%)$'),
  constraint workflow_policy_end check (
    (applies_until is null) = (ended_by is null) and applies_until >= applies_from)
);

-- One at a time for a pattern; and what every finish asks first, whether there is any, is one look at an empty page.
create unique index workflow_policy_present on {schema}.workflow_policy (pattern) where applies_until is null;

comment on table {schema}.workflow_policy is
  'What a type, or a prefix ending in %, keeps: its events, its succeeded runs.  Set by set_policy; the most specific counts.';

-- What changes how many runs there are leaves how many that were (see 0008).  from_status null: they come into being, or are
-- shown again; to_status null: they are deleted, or hidden.
create table {schema}.workflow_delta (
  xid         xid8        not null default pg_current_xact_id(),
  created_at  timestamptz not null default clock_timestamp(),
  runs        int         not null,
  type        text        collate "C" not null,
  from_status text,
  to_status   text,
  event_type  text
);

-- Who folds or reads looks from the last fold on, however many dead rows a snapshot that somebody holds keeps behind it.
create index workflow_delta_xid on {schema}.workflow_delta (xid);

comment on table {schema}.workflow_delta is
  'So many runs of a type changed their status in one statement: what is not yet in workflow_count.';

-- A delta lives for seconds.
alter table {schema}.workflow_delta set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Each run leaves dead versions behind; the default fifth of the table would be far too late.  Half of each page is left
-- for the versions that a claim and a finish write: the payload is then logged once and not three times, and the page
-- is used again by its own runs.  (WAL for an empty payload: 2,306 bytes a run with full pages, 2,103 so.)
alter table {schema}.workflow_run set (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.05);
