"""Row-level security on the tenant tables of this app, and the functions that open a person's context.

The setting `portal.organizations` of a connection is its context: an array of ids, or `*` for all organizations. Without
it, no row is visible and none can be written. docs/security.md explains it, decisions/0008-row-level-security.md why.
"""

from django.db import migrations

# Both conditions are sub-selects, so that a statement computes them once and not for each row.
FUNCTIONS = """
CREATE FUNCTION portal_organizations() RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN current_setting('portal.organizations', true) IN ('', '*') THEN '{}'::uuid[]
        ELSE current_setting('portal.organizations', true)::uuid[]
    END
$$;
-- Sets the context to the organizations whose members the person is, and returns it. The reads inside are of all
-- organizations, also where the owner of the tables is subject to the policies. If they fail, the setting is undone.
CREATE FUNCTION portal_enter_person(person bigint) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE context text := '{}';
BEGIN
    IF person IS NOT NULL THEN
        PERFORM set_config('portal.organizations', '*', false);
        SELECT coalesce(array_agg(membership.organization_id)::text, '{}') INTO context
        FROM portal_membership AS membership
        JOIN portal_organization AS organization ON organization.id = membership.organization_id
        JOIN portal_user AS member ON member.id = membership.user_id
        WHERE membership.user_id = person AND organization.is_active AND member.is_active;
    END IF;
    PERFORM set_config('portal.organizations', context, false);
    RETURN context;
END $$;
-- Reads a session that ends after `moment`, and enters its person. Always returns one row.
CREATE FUNCTION portal_open_session(stored_key text, moment timestamptz)
RETURNS TABLE (session_data text, expire_date timestamptz, person_id bigint, organizations text)
LANGUAGE plpgsql ROWS 1 SECURITY DEFINER AS $$
BEGIN
    SELECT session.session_data, session.expire_date, device.user_id INTO session_data, expire_date, person_id
    FROM django_session AS session
    LEFT JOIN usersessions_usersession AS device ON device.session_key = session.session_key
    WHERE session.session_key = stored_key AND session.expire_date > moment;
    organizations := portal_enter_person(person_id);
    RETURN NEXT;
END $$;
-- They run with the owner's rights, so no table of a caller may stand in for the portal's.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['portal_enter_person(bigint)', 'portal_open_session(text, timestamptz)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END $$;
"""
POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON {table} USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR {column} = ANY ((SELECT portal_organizations())::uuid[])
);
"""
UNDO = "DROP POLICY organizations ON {table}; ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;"
DROP = """
DROP FUNCTION portal_open_session(text, timestamptz);
DROP FUNCTION portal_enter_person(bigint);
DROP FUNCTION portal_organizations();
"""
# An audit row of no organization, such as a sign-in, is visible only in the context of all organizations.
TABLES = {
    "portal_organization": "id",
    "portal_membership": "organization_id",
    "portal_auditevent": "organization_id",
    "portal_idempotencykey": "organization_id",
    "portal_notificationchannel": "organization_id",
    "portal_notificationdelivery": "organization_id",
}


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0020_audit_repeats_and_elevation"),
        ("sessions", "0001_initial"),
        ("usersessions", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL(FUNCTIONS, DROP),
        *(
            migrations.RunSQL(POLICY.format(table=table, column=column), UNDO.format(table=table))
            for table, column in TABLES.items()
        ),
    ]
