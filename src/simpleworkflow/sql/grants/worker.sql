-- A worker claims runs, which brings their payloads, ends what it holds, and carries out what an operator asked for.  It reads and writes no table.
grant usage on schema {schema} to {role};
grant select on {schema}.workflow_migration to {role};
grant execute on function
  {schema}.claim, {schema}.finish, {schema}.heartbeat, {schema}.progress, {schema}.release, {schema}.exchange,
  {schema}.expire, {schema}.next_lease_until, {schema}.register_types, {schema}.traceparents, {schema}.fold,
  {schema}.next_upkeep, {schema}.carry_operation,
  {schema}.register_worker, {schema}.beat_workers, {schema}.end_workers
  to {role};
