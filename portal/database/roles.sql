-- The roles of a site, for psql, in its database, as a role that may create roles. Running it again does no harm.
-- portal_owner runs `migrate` and owns the tables. portal_app is the role of web, worker and scheduler: it owns nothing,
-- and row-level security applies to it. portal_maintenance is the role of `prune_audit` alone.
-- Afterwards set their passwords: ALTER ROLE portal_app PASSWORD '...'.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['portal_owner', 'portal_app', 'portal_maintenance'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
END $$;
GRANT USAGE, CREATE ON SCHEMA public TO portal_owner;
GRANT USAGE ON SCHEMA public TO portal_app;

-- What an earlier release made as a superuser becomes portal_owner's. Sequences of columns follow their tables.
-- What it made as another role stays: that role is the site's DATABASE_OWNER_URL (docs/deployment.md).
DO $$
DECLARE
    made record;
    superusers oid[] := ARRAY(SELECT oid FROM pg_roles WHERE rolsuper);
BEGIN
    FOR made IN
        SELECT format('TABLE %s', oid::regclass) AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relowner = ANY (superusers)
        UNION ALL
        SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner = ANY (superusers)
    LOOP
        EXECUTE format('ALTER %s OWNER TO portal_owner', made.name);
    END LOOP;
END $$;
