-- The group roles of this schema, those that are missing.  Nobody logs in as one of them; a login becomes a member.
--
-- Roles belong to the whole server, and a member has a role's rights wherever it has any.  So one that has rights
-- in another database or schema is refused, unless it has some here already.
do $do$
declare
  v_schema oid := '{schema}'::regnamespace;
  v_database oid := (select oid from pg_catalog.pg_database where datname = current_database());
  v_name text;
begin
  foreach v_name in array array['{schema}_producer', '{schema}_worker', '{schema}_operator', '{schema}_reader'] loop
    if pg_catalog.to_regrole(v_name) is null then
      begin
        execute pg_catalog.format('create role %I nologin', v_name);
      exception when duplicate_object or unique_violation then
        null;   -- somebody in another database was faster: looked at below like any that was there
      end;
    end if;
    if not exists (
         select from pg_catalog.pg_shdepend as held
          where held.refclassid = 'pg_catalog.pg_authid'::regclass and held.refobjid = v_name::regrole
            and held.dbid = v_database and held.classid = 'pg_catalog.pg_namespace'::regclass and held.objid = v_schema)
       and exists (
         select from pg_catalog.pg_shdepend as held
          where held.refclassid = 'pg_catalog.pg_authid'::regclass and held.refobjid = v_name::regrole
            and held.dbid <> 0) then
      raise exception using errcode = 'duplicate_object',
        message = pg_catalog.format('role %s exists and has rights elsewhere, which its members would have here too', v_name),
        hint = 'install into a schema of another name, or take those rights from the role';
    end if;
  end loop;
end
$do$;
