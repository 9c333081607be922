-- A producer records runs and learns their ids.  It reads no payload, status, result or error, and changes nothing.
grant usage on schema {schema} to {role};
grant select on {schema}.workflow_migration to {role};
grant insert (id, type, payload, priority, run_at, idempotency_key, max_attempts, traceparent), select (id, idempotency_key)
  on {schema}.workflow_run to {role};
grant execute on function {schema}.submit, {schema}.submit_many to {role};
