-- After how many seconds of silence the server gives up a session; all three are 0 on a socket of the machine itself.
with seconds as (
  select current_setting('tcp_keepalives_idle')::int
           + current_setting('tcp_keepalives_interval')::int * current_setting('tcp_keepalives_count')::int as number)
select 'notice',
       format('the server notices after %s that a client''s machine has gone', make_interval(secs => seconds.number)),
       'until then what that machine had begun keeps its locks, and its connections stay used',
       'alter system set tcp_keepalives_idle = 60; alter system set tcp_keepalives_interval = 10; '
       'alter system set tcp_keepalives_count = 6; select pg_reload_conf()'
  from seconds
 -- A client on the same machine goes with the server; there only what is slower than the systems' own 2 h 11 min counts.
 where seconds.number > case when inet_client_addr() is distinct from inet_server_addr() then 900 else 7875 end
   and coalesce((select setting from pg_settings where name = 'tcp_user_timeout'), '0') = '0'
   and current_setting('idle_in_transaction_session_timeout') = '0'
