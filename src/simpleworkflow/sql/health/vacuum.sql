select 'warning',
       format('autovacuum is switched off for %s', class.relname),
       'each run leaves dead rows behind: claims grow slower and the table larger without end',
       format('alter table {schema}.%I reset (autovacuum_enabled)', class.relname)
  from pg_class as class
  join pg_namespace as namespace on namespace.oid = class.relnamespace
 where namespace.nspname = '{schema}'
   and class.relkind = 'r'
   and exists (select from pg_options_to_table(class.reloptions) as option
                where option.option_name = 'autovacuum_enabled' and not option.option_value::boolean)
union all
select 'warning',
       format('%s has %s dead rows beside %s live ones, last vacuumed %s', stat.relname, stat.n_dead_tup, stat.n_live_tup,
              coalesce(date_trunc('second', clock_timestamp()
                                            - greatest(stat.last_autovacuum, stat.last_vacuum))::text || ' ago', 'never')),
       'every claim scans their index entries; a long transaction or a slow autovacuum keeps them',
       format('vacuum (analyze) {schema}.%I', stat.relname)
  from pg_stat_all_tables as stat
 where stat.schemaname = '{schema}'
   and stat.n_dead_tup > 10000 + 0.5 * stat.n_live_tup
