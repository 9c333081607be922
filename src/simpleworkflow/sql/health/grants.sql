-- What the role may do, by what it would need for it.
with need (verb, name) as (values
  ('submit', 'submit'), ('submit', 'submit_many'),
  ('claim', 'claim'), ('claim', 'exchange'), ('claim', 'finish'), ('claim', 'heartbeat'), ('claim', 'release'),
  ('claim', 'expire'), ('claim', 'progress'), ('claim', 'next_lease_until'), ('claim', 'register_types'),
  ('operate', 'cancel'), ('operate', 'reopen'), ('operate', 'prune'), ('operate', 'set_policy'), ('operate', 'drop_policy'),
  ('read', 'get_runs'), ('read', 'list_runs'), ('read', 'list_events'), ('read', 'list_policies')),
schema as (
  select namespace.oid, has_schema_privilege(namespace.oid, 'usage') as may_use
    from pg_namespace as namespace where namespace.nspname = '{schema}'),
may_call as (
  select need.verb, need.name, bool_and(has_function_privilege(proc.oid, 'execute')) as may
    from need
    join schema on true
    join pg_proc as proc on proc.pronamespace = schema.oid and proc.proname = need.name
   group by need.verb, need.name),
tables as (
  select bool_or(has_any_column_privilege(class.oid, 'insert')) filter (where class.relname = 'workflow_run') as may_insert,
         bool_and(has_table_privilege(class.oid, 'select')) as may_select,
         bool_or(pg_has_role(class.relowner, 'usage')) as owns
    from pg_class as class
    join schema on schema.oid = class.relnamespace
   where class.relname in ('workflow_run', 'workflow_event')),
verdict (position, verb, may) as (
  select 1, 'submit', tables.may_insert or (select bool_or(may) from may_call where verb = 'submit') from tables
  union all
  select 2, 'claim', (select bool_or(may) from may_call where name = 'claim')
  union all
  select 3, 'operate', (select bool_or(may) from may_call where verb = 'operate')
  union all
  select 4, 'read', tables.may_select from tables),
said as (
  select string_agg(verb, ', ' order by position) filter (where may and schema.may_use) as may,
         string_agg(verb, ', ' order by position) filter (where not (may and schema.may_use)) as may_not
    from verdict
    join schema on true)
select case when said.may is null then 'error' when tables.owns then 'notice' else 'ok' end,
       case when said.may is null then format('role %s may do nothing in schema {schema}', current_user)
            when (select rolsuper from pg_roles where rolname = current_user) then
              format('role %s is a superuser: no guard binds it', current_user)
            when tables.owns then format('role %s owns the tables: it can drop their guards', current_user)
            else format('role %s may %s%s', current_user, said.may, '; not ' || said.may_not) end,
       case when said.may is null then 'every call will be refused'
            when tables.owns then 'a mistake or an intruder can then change a run without an event' end,
       case when said.may is null then format('wf migrate --grant-to %I, as the owner of the schema', current_user)
            when tables.owns then 'run producers and workers as a role of their own: wf migrate --grant-to ROLE' end
  from said, tables
union all
select 'error',
       format('role %s may claim, but not call %s', current_user, string_agg(may_call.name, ', ' order by may_call.name)),
       'a worker of this role fails as soon as it needs them; migrations may have added them',
       format('wf migrate --grant-to %I, as the owner of the schema', current_user)
  from may_call
 where may_call.verb = 'claim' and not may_call.may
   and exists (select from verdict where verb = 'claim' and may)
having count(*) > 0
