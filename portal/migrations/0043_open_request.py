"""Reads session, person, memberships and organizations in one function, which also enters the context of the person.

The functions of 0023 stay for the release before.
"""

from django.db import migrations

# The rows of the tables are returned whole, so that a release takes the columns that it knows.
FUNCTION = """
-- Reads a session that ends after `moment` and its person, or without `stored_key` the person `known`, and sets the context.
-- Returns one row for each organization of the person, by name; one row without an organization if there is none. Session and
-- person are in the first row alone. The reads are of all organizations, as in portal_enter_person.
CREATE FUNCTION portal_open_request(stored_key text, moment timestamptz, known bigint)
RETURNS TABLE (
    session_data text, expire_date timestamptz, person portal_user, has_second_factor boolean,
    role text, organization portal_organization
)
LANGUAGE plpgsql ROWS 1 SECURITY DEFINER AS $$
DECLARE
    person_id bigint := known;
    ids text := '';
    each record;
BEGIN
    IF stored_key IS NOT NULL THEN
        SELECT session.session_data, session.expire_date, device.user_id INTO session_data, expire_date, person_id
        FROM django_session AS session
        LEFT JOIN usersessions_usersession AS device ON device.session_key = session.session_key
        WHERE session.session_key = stored_key AND session.expire_date > moment;
    END IF;
    IF person_id IS NOT NULL THEN
        PERFORM set_config('portal.organizations', '*', false);
        FOR each IN
            SELECT member, membership.role, tenant, EXISTS (
                SELECT FROM mfa_authenticator AS factor
                WHERE factor.user_id = person_id AND factor.type IN ('totp', 'webauthn')
            ) AS has_factor
            FROM portal_user AS member
            LEFT JOIN (
                portal_membership AS membership JOIN portal_organization AS tenant ON tenant.id = membership.organization_id
            ) ON membership.user_id = member.id AND membership.accepted_at IS NOT NULL
                AND tenant.is_active AND member.is_active
            WHERE member.id = person_id
            ORDER BY tenant.name, tenant.id
        LOOP
            has_second_factor := each.has_factor;
            role := each.role;
            organization := each.tenant;
            person := CASE WHEN ids = '' THEN each.member END;
            IF role IS NOT NULL THEN
                ids := ids || ',' || organization.id;
            END IF;
            RETURN NEXT;
            session_data := NULL;
            expire_date := NULL;
        END LOOP;
    END IF;
    PERFORM set_config('portal.organizations', '{' || substr(ids, 2) || '}', false);
    IF person.id IS NULL AND ids = '' THEN
        RETURN NEXT;
    END IF;
END $$;
-- It runs with the owner's rights, so no table of a caller may stand in for the portal's.
DO $$ BEGIN
    EXECUTE format(
        'ALTER FUNCTION portal_open_request(text, timestamptz, bigint) SET search_path = %I, pg_temp', current_schema()
    );
END $$;
"""
DROP = "DROP FUNCTION portal_open_request(text, timestamptz, bigint);"


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0042_audit_kinds"),
        ("mfa", "0003_authenticator_type_uniq"),
        ("sessions", "0001_initial"),
        ("usersessions", "0001_initial"),
    ]

    operations = [migrations.RunSQL(FUNCTION, DROP)]
