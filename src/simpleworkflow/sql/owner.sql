-- A role that owns the tables and cannot log in: whoever works with them can then neither drop a guard nor
-- pretend to be one.  Only a role that may create roles can run this.
do $do$
begin
  perform pg_advisory_xact_lock(hashtextextended('workflow owner', 0));
  if to_regrole('{owner}') is null then
    create role {owner} nologin;
  end if;
  execute format('grant create on database %I to {owner}', current_database());
end
$do$;
