-- An operator reads everything, cancels, reopens, prunes, edits what is pending, pauses and resumes types, keeps
-- schedules, sets policies, counts anew, operates on all the runs that a filter matches.
-- All writing is granted by column: a right on the whole table would be one to lock it.
grant usage on schema {schema} to {role};
grant select on
  {schema}.workflow_run, {schema}.workflow_event, {schema}.workflow_migration, {schema}.workflow_schedule,
  {schema}.workflow_registry, {schema}.workflow_policy, {schema}.workflow_pause, {schema}.workflow_operation,
  {schema}.workflow_delta, {schema}.workflow_count, {schema}.workflow_rate, {schema}.workflow_fold,
  {schema}.workflow_worker
  to {role};
grant update (status, updated_at, priority, run_at, payload, deleted_at) on {schema}.workflow_run to {role};
grant insert (id, type, payload, schedule, timezone, next_run_at, last_run_at, enabled, priority, max_attempts,
              created_at, updated_at, deleted_at),
      update (id, type, payload, schedule, timezone, next_run_at, last_run_at, enabled, priority, max_attempts,
              created_at, updated_at, deleted_at)
  on {schema}.workflow_schedule to {role};
grant insert (workflow_name, runtime, is_enabled, description, created_at, updated_at),
      update (workflow_name, runtime, is_enabled, description, created_at, updated_at)
  on {schema}.workflow_registry to {role};
grant execute on function
  {schema}.cancel, {schema}.reopen, {schema}.prune, {schema}.count_prunable, {schema}.set_policy, {schema}.drop_policy,
  {schema}.pause, {schema}.resume, {schema}.fold, {schema}.recount, {schema}.open_transactions,
  {schema}.operate, {schema}.count_operable, {schema}.stop_operation, {schema}.next_upkeep, {schema}.carry_operation,
  {schema}.add_key, {schema}.revoke_key, {schema}.list_keys, {schema}.stream_place
  to {role};
