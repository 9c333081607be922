-- A reader sees what happens, not what about: no payloads, no results, no errors, no data of events.
grant usage on schema {schema} to {role};
grant select on
  {schema}.workflow_migration, {schema}.workflow_registry, {schema}.workflow_policy, {schema}.workflow_pause,
  {schema}.workflow_operation, {schema}.workflow_worker,
  {schema}.workflow_delta, {schema}.workflow_count, {schema}.workflow_rate, {schema}.workflow_fold
  to {role};
grant select (id, type, status, priority, run_at, idempotency_key, attempt, max_attempts, leased_by, lease_until,
              created_at, updated_at, deleted_at, fencing_token, parent_id, finished_at, crashes, is_suspect,
              keeps_events, traceparent)
  on {schema}.workflow_run to {role};
grant select (id, workflow_id, event_type, created_at) on {schema}.workflow_event to {role};
grant select (id, type, schedule, timezone, next_run_at, last_run_at, enabled, priority, max_attempts, created_at,
              updated_at, deleted_at)
  on {schema}.workflow_schedule to {role};
-- What a reader may have to do before it can read, where no worker does: it changes no count.
grant execute on function {schema}.fold to {role};
-- A server that only shows has to know who may look.
grant execute on function {schema}.list_keys, {schema}.stream_place to {role};
grant execute on function {schema}.open_transactions to {role};
