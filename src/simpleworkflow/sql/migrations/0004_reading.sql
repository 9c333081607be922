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
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
begin
  return query execute format('select %s from {schema}.workflow_run where id = any ($1)',
                              {schema}.readable_columns('{schema}.workflow_run'))
    using p_ids;
end
$fn$;

-- Runs of any of the patterns and statuses, newest first, those before p_before on the page before: pages go by
-- the id, which is ordered by time where the database makes it.
create function {schema}.list_runs(
  p_patterns text[] default null,
  p_statuses text[] default null,
  p_created_from timestamptz default null,
  p_created_before timestamptz default null,
  p_before uuid default null,
  p_limit int default 50)
returns setof {schema}.workflow_run
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
begin
  -- Planned for the values at hand: one plan for all of them could not use the partial indexes.
  return query execute format($query$
    select %s
      from {schema}.workflow_run as run
     where run.deleted_at is null
       and ($1 is null or exists (
             select from unnest($1) as pattern
              where run.type = pattern or pattern like '%%\%%' and starts_with(run.type, left(pattern, -1))))
       and ($2 is null or run.status = any ($2))
       and ($3 is null or run.created_at >= $3)
       and ($4 is null or run.created_at < $4)
       and ($5 is null or run.id < $5)
     order by run.id desc
     limit $6 $query$, {schema}.readable_columns('{schema}.workflow_run'))
    using p_patterns, p_statuses, p_created_from, p_created_before, p_before, p_limit;
end
$fn$;

create function {schema}.list_events(p_run_id uuid, p_after bigint default 0, p_limit int default 10000)
returns setof {schema}.workflow_event
language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
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
   order by policy.pattern not like '%\%', length(policy.pattern), policy.pattern
$fn$;

-- Which of these runs have ended.  What everybody who waits in one process asks in one statement.
create function {schema}.ended_runs(p_ids uuid[]) returns table (id uuid, status text)
language sql stable set search_path = pg_catalog, pg_temp as $fn$
  select run.id, run.status
    from {schema}.workflow_run as run
   where run.id = any (p_ids) and run.status in ('succeeded', 'failed', 'cancelled')
$fn$;
