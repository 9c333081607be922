-- Whether what the tables hold is what the promises say.
--
-- One row for each violation: the law, the run, what was found.  Nothing comes back when all is well.  The
-- function is stable: all its statements read one snapshot, so that it may run while workers do.  Reads both tables
-- whole: 100,000 runs with 300,000 events take 1 s.  With the caller's own rights.
--
-- Events that this version does not know are taken for notes: they change no status.
create function {schema}.verify(p_slack_seconds double precision default 5)
returns table (law text, run_id uuid, found text)
language plpgsql stable
set search_path = pg_catalog, pg_temp set work_mem = '64MB' set jit = off as $fn$
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
      from {schema}.workflow_event as event
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
      from {schema}.workflow_event as event
     where event.event_type in ('created', 'leased', 'succeeded', 'failed', 'retried', 'released', 'suspended',
                                'expired', 'woken', 'cancelled', 'reopened')
     order by event.workflow_id, event.id desc)
  select 'the last event tells the present status', run.id,
         format('the run is %s, its last event is %s', run.status, coalesce(latest.event_type, 'missing'))
    from {schema}.workflow_run as run
    left join latest on latest.workflow_id = run.id
   where latest.status is distinct from run.status and run.keeps_events;

  -- Those that keep no events are exempt from what is asked of events, and from nothing else.
  return query
  select 'only a policy lets a run keep no events', run.id, format('no policy for type %s ever said so', run.type)
    from {schema}.workflow_run as run
   where not run.keeps_events
     and not exists (
           select from {schema}.workflow_policy as policy
            where not policy.keeps_events
              and (policy.pattern = run.type
                   or right(policy.pattern, 1) = '%' and starts_with(run.type, left(policy.pattern, -1))));

  return query
  select 'a run that keeps no events has none', run.id, format('it has %s', count(*))
    from {schema}.workflow_run as run
    join {schema}.workflow_event as event on event.workflow_id = run.id
   where not run.keeps_events
   group by run.id;

  return query
  select 'every event belongs to a run', event.workflow_id,
         format('%s events, but no run', count(*))
    from {schema}.workflow_event as event
   where not exists (select from {schema}.workflow_run as run where run.id = event.workflow_id)
   group by event.workflow_id;

  return query
  with claims as (
    select event.workflow_id, count(*) as number
      from {schema}.workflow_event as event
     where event.event_type = 'leased'
     group by event.workflow_id)
  select 'the fencing token is the number of claims', run.id,
         format('the token is %s, claims are %s', run.fencing_token, coalesce(claims.number, 0))
    from {schema}.workflow_run as run
    left join claims on claims.workflow_id = run.id
   where run.fencing_token <> coalesce(claims.number, 0) and run.keeps_events;

  -- Tokens are compared as text: what is no number is a violation, not an error.
  return query
  with claimed as (
    select event.workflow_id, event.id, event.event_type, event.data ->> 'token' as token,
           count(*) filter (where event.event_type = 'leased') over (
             partition by event.workflow_id order by event.id) as claims
      from {schema}.workflow_event as event)
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
              from {schema}.workflow_event as change
             where change.workflow_id = event.workflow_id and change.id < event.id
               and change.event_type not in ('heartbeat', 'progress')
             order by change.id desc
             limit 1) as before_type
      from {schema}.workflow_event as event
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
    from {schema}.workflow_run as run
   where (run.status = 'leased') <> (run.leased_by is not null)
      or (run.status = 'leased') <> (run.lease_until is not null);

  return query
  select 'ended if and only if it has finished_at', run.id,
         format('the run is %s, finished_at %s', run.status, coalesce(run.finished_at::text, 'null'))
    from {schema}.workflow_run as run
   where (run.status in ('succeeded', 'failed', 'cancelled')) <> (run.finished_at is not null);

  return query
  select 'a lapsed lease is expired in time', run.id,
         format('the lease of %s lapsed at %s', run.leased_by, run.lease_until)
    from {schema}.workflow_run as run
   where run.status = 'leased' and run.lease_until < clock_timestamp() - make_interval(secs => p_slack_seconds);

  return query
  select 'one run for each idempotency key', run.id,
         format('key %s has more than one run', quote_literal(left(run.idempotency_key, 60)))
    from {schema}.workflow_run as run
   where run.idempotency_key in (
           select idempotency_key from {schema}.workflow_run where idempotency_key is not null
            group by idempotency_key having count(*) > 1);

  return query
  select 'attempts stay within their budget and their claims', run.id,
         format('attempt %s of %s, after %s claims', run.attempt, run.max_attempts, run.fencing_token)
    from {schema}.workflow_run as run
   where run.attempt < 0 or run.attempt > run.max_attempts or run.attempt > run.fencing_token
      or run.status = 'pending' and run.attempt >= run.max_attempts
      or run.status = 'leased' and run.attempt < 1;

  return query
  select 'what is counted is what is there', null::uuid,
         format('%s %s runs of type %s were counted, there are %s', miscount.counted, miscount.status, miscount.type,
                miscount.runs)
    from {schema}.miscounts() as miscount;
end
$fn$;
