-- An application is producer, worker and operator at once.  It may name every column, as mappers of objects to
-- rows do; the guard bounds what it can change.
grant insert (id, type, payload, status, priority, run_at, idempotency_key, attempt, max_attempts, leased_by,
              lease_until, last_error, result, created_at, updated_at, deleted_at, fencing_token, parent_id,
              finished_at, crashes, is_suspect, keeps_events, traceparent),
      update (id, type, payload, status, priority, run_at, idempotency_key, attempt, max_attempts, leased_by,
              lease_until, last_error, result, created_at, updated_at, deleted_at, fencing_token, parent_id,
              finished_at, crashes, is_suspect, keeps_events, traceparent)
  on {schema}.workflow_run to {role};
