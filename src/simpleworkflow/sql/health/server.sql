select case when number < 140000 then 'error' when number >= 190000 then 'notice' else 'ok' end,
       format('PostgreSQL %s, database %s, role %s', split_part(current_setting('server_version'), ' ', 1),
              current_database(), current_user),
       'tested with PostgreSQL 14 to 18',
       case when number < 140000 then 'upgrade the server to PostgreSQL 14 or newer'
            when number >= 190000 then 'upgrade simpleworkflow when a version for it is out' end
  from (select current_setting('server_version_num')::int) as server (number)
