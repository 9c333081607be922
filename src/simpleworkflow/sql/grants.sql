-- What an application needs that does not own the tables: everything the table contract offers, nothing more.
grant usage on schema {schema} to {role};
grant select, insert, update on {schema}.workflow_run to {role};
grant select on {schema}.workflow_event, {schema}.workflow_migration to {role};
grant select, insert, update, delete on {schema}.workflow_schedule, {schema}.workflow_registry to {role};
