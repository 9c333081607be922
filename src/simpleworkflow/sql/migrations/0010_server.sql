-- What the server needs: keys, the list of schedules, and all events as one stream.

create table {schema}.workflow_api_key (
  id         bigint      generated always as identity,
  name       text        collate "C" not null,
  role       text        not null,
  digest     text        not null,
  created_at timestamptz not null default clock_timestamp(),
  created_by text        not null default session_user,
  revoked_at timestamptz,
  revoked_by text,
  constraint workflow_api_key_pkey primary key (id),
  constraint workflow_api_key_name check (name ~ '^[A-Za-z0-9._@-]{1,100}$'),
  constraint workflow_api_key_role check (role in ('reader', 'operator', 'admin')),
  constraint workflow_api_key_digest check (digest ~ '^[0-9a-f]{64}$'),
  constraint workflow_api_key_end check ((revoked_at is null) = (revoked_by is null))
);

create unique index workflow_api_key_present on {schema}.workflow_api_key (name) where revoked_at is null;

comment on table {schema}.workflow_api_key is
  'Who may ask the server for what: of each key its SHA-256, never the key.  Rows are history; a revoked one stays.';

create function {schema}.add_key(p_name text, p_role text, p_digest text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  insert into {schema}.workflow_api_key (name, role, digest) values (p_name, p_role, p_digest)
  on conflict (name) where revoked_at is null do nothing;
  return found;
end
$fn$;

create function {schema}.revoke_key(p_name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  update {schema}.workflow_api_key
     set revoked_at = clock_timestamp(), revoked_by = session_user
   where name = p_name and revoked_at is null;
  return found;
end
$fn$;

-- All keys, revoked ones too.  A digest of 32 random bytes tells nobody the key.
create function {schema}.list_keys()
returns table (name text, role text, digest text, created_at timestamptz, created_by text, revoked_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $fn$
  select key.name::text, key.role, key.digest, key.created_at, key.created_by, key.revoked_at
    from {schema}.workflow_api_key as key
   order by key.id
$fn$;

-- A time that a client's language cannot hold, as infinity, comes as null: it would break the whole list.
create function {schema}.list_schedules(p_limit int default 1000)
returns table (id uuid, type text, schedule text, timezone text, next_run_at timestamptz, last_run_at timestamptz,
               enabled boolean, priority int, max_attempts int)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select one.id, one.type::text, one.schedule, one.timezone,
         case when one.next_run_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then one.next_run_at end,
         case when one.last_run_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then one.last_run_at end,
         one.enabled, one.priority, one.max_attempts
    from {schema}.workflow_schedule as one
   where one.deleted_at is null
   order by one.type, one.id
   limit p_limit
$fn$;

-- ── the stream ──────────────────────────────────────────────────────────────────────────────────────
--
-- Ids are given out in order and committed in any order: below an id that is seen others may still come.  A transaction that
-- writes events has written a run before, so it has its number (xid) before it takes an id.  So once an id is known to be
-- given out, whoever took it is below the next snapshot's xmax; and when a later snapshot's xmin has reached that, all ids
-- up to it are settled: what cannot be seen will never be.

-- What is read by id.
create index workflow_event_stream on {schema}.workflow_event (id);

-- The last id that was given out, and where the transactions stand.  The id is read after the snapshot was taken: it is the
-- one of the call before that is covered by this call's p_xmax.
create function {schema}.stream_place(out last_id bigint, out xmin bigint, out xmax bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $fn$
  select coalesce(pg_sequence_last_value(pg_get_serial_sequence('{schema}.workflow_event', 'id')::regclass), 0),
         pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint
$fn$;

-- The events after p_after and those in the gaps (p_lows to p_highs, inclusive), in the order of their ids, p_limit at most.
-- Of one whose run is of none of the patterns only the id is told, as of one whose run is no more where some are asked for.
create function {schema}.read_stream(
  p_after bigint,
  p_lows bigint[] default '{}',
  p_highs bigint[] default '{}',
  p_patterns text[] default null,
  p_limit int default 200)
returns table (id bigint, run_id uuid, event_type text, data jsonb, created_at timestamptz, type text)
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $fn$
declare
  v_columns text := case when has_column_privilege('{schema}.workflow_event', 'data', 'select')
                           then 'event.data' else 'null::jsonb as data' end;
begin
  return query execute format($sql$
    with seen as (
      (select event.id, event.workflow_id, event.event_type, %1$s, event.created_at
         from {schema}.workflow_event as event
        where event.id > $1
        order by event.id
        limit $5)
      union all
      (select event.*
         from unnest($2, $3) as gap (low, high)
        cross join lateral (
              select event.id, event.workflow_id, event.event_type, %1$s, event.created_at
                from {schema}.workflow_event as event
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
        left join lateral (select run.type from {schema}.workflow_run as run where run.id = seen.workflow_id) as run on true)
    select known.id, case when is_wanted then known.workflow_id end, case when is_wanted then known.event_type end,
           case when is_wanted then known.data end, case when is_wanted then known.created_at end,
           case when is_wanted then known.type end
      from known
     order by known.id
  $sql$, v_columns) using p_after, p_lows, p_highs, p_patterns, p_limit;
end
$fn$;

revoke execute on function {schema}.add_key, {schema}.revoke_key, {schema}.list_keys, {schema}.stream_place from public;
