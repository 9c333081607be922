-- What an application needs that does not own the tables: everything the table contract offers, nothing more.
grant usage on schema {schema} to {role};
grant select, insert, update on {schema}.workflow_run to {role};
grant select on {schema}.workflow_event, {schema}.workflow_migration to {role};
grant select, insert, update, delete on {schema}.workflow_schedule, {schema}.workflow_registry to {role};
grant execute on function
  {schema}.submit, {schema}.submit_many, {schema}.claim, {schema}.finish, {schema}.heartbeat, {schema}.progress,
  {schema}.release, {schema}.exchange, {schema}.expire, {schema}.next_lease_until, {schema}.cancel,
  {schema}.reopen, {schema}.register_types
  to {role};
