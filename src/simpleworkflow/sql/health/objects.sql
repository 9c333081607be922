-- What is there of what the schema should have, and in what state; Python compares it with sql/schema.sql.
select 'table', class.relname::text, class.relname::text, ''
  from pg_class as class
 where class.relnamespace = to_regnamespace('{schema}') and class.relkind = 'r'
union all
select 'index', class.relname, class.relname, case when index.indisvalid and index.indisready then '' else 'is invalid' end
  from pg_index as index
  join pg_class as class on class.oid = index.indexrelid
 where class.relnamespace = to_regnamespace('{schema}')
union all
select 'constraint', con.conname, class.relname, case when con.convalidated then '' else 'is not validated' end
  from pg_constraint as con
  join pg_class as class on class.oid = con.conrelid
 where con.connamespace = to_regnamespace('{schema}')
union all
select 'trigger', trigger.tgname, class.relname,
       case when trigger.tgenabled not in ('O', 'A') then 'is switched off'
            -- As PostgreSQL prints the bytes of the name in the condition: pg_get_triggerdef would wait for locks.
            when trigger.tgname = 'a_guard_update'
                 and position((
                       select '[ ' || string_agg(((get_byte(name, n) + 128) % 256 - 128)::text, ' ' order by n) || ' 0'
                         from convert_to(pg_get_userbyid(class.relowner)::text, getdatabaseencoding()) as name,
                              generate_series(0, length(name) - 1) as n) in trigger.tgqual::text) = 0
              then 'knows a former owner of the table'
            else '' end
  from pg_trigger as trigger
  join pg_class as class on class.oid = trigger.tgrelid
 where class.relnamespace = to_regnamespace('{schema}') and not trigger.tgisinternal
union all
select 'function', proc.proname, proc.proname, ''
  from pg_proc as proc
 where proc.pronamespace = to_regnamespace('{schema}')
union all
select 'owner', pg_get_userbyid(class.relowner), class.relname, ''
  from pg_class as class
 where class.relnamespace = to_regnamespace('{schema}') and class.relname = 'workflow_run'
