select 'error', 'this server is a standby: it can only be read',
       'nothing can be submitted, claimed or finished here',
       'let DATABASE_URL name the primary, or all hosts with ?target_session_attrs=read-write'
 where pg_is_in_recovery()
