"""Row-level security of API tokens, and the function that reads a token and enters the context of its organization."""

from django.db import migrations

POLICY = """
ALTER TABLE portal_apitoken ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON portal_apitoken USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR organization_id = ANY ((SELECT portal_organizations())::uuid[])
);
"""
UNDO = "DROP POLICY organizations ON portal_apitoken; ALTER TABLE portal_apitoken DISABLE ROW LEVEL SECURITY;"

# The rows of the tables are returned whole, so that a release takes the columns that it knows.
FUNCTION = """
-- Reads a token that is valid at `moment` with its person and organization, and sets the context to this organization.
-- Returns no row, and sets an empty context, if the token is unknown, expired or revoked, its person switched off or no
-- longer a member since it was made, or the organization suspended. The reads are of all organizations, as in
-- portal_open_request.
CREATE FUNCTION portal_open_token(stored_hash text, moment timestamptz)
RETURNS TABLE (
    token portal_apitoken, has_second_factor boolean, person portal_user, role text, organization portal_organization
)
LANGUAGE plpgsql ROWS 1 SECURITY DEFINER AS $$
DECLARE
    ids text := '';
    each record;
BEGIN
    PERFORM set_config('portal.organizations', '*', false);
    FOR each IN
        SELECT granted, member, membership.role AS held, tenant, EXISTS (
            SELECT FROM mfa_authenticator AS factor
            WHERE factor.user_id = member.id AND factor.type IN ('totp', 'webauthn')
        ) AS has_factor
        FROM portal_apitoken AS granted
        JOIN portal_user AS member ON member.id = granted.user_id AND member.is_active
        JOIN portal_organization AS tenant ON tenant.id = granted.organization_id AND tenant.is_active
        JOIN portal_membership AS membership ON membership.user_id = member.id
            AND membership.organization_id = tenant.id AND membership.accepted_at <= granted.created_at
        WHERE granted.secret_hash = stored_hash AND granted.revoked_at IS NULL AND granted.expires_at > moment
    LOOP
        token := each.granted;
        has_second_factor := each.has_factor;
        person := each.member;
        role := each.held;
        organization := each.tenant;
        ids := organization.id::text;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('portal.organizations', '{' || ids || '}', false);
END $$;
-- It runs with the owner's rights, so no table of a caller may stand in for the portal's.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION portal_open_token(text, timestamptz) SET search_path = %I, pg_temp', current_schema());
END $$;
"""
DROP = "DROP FUNCTION portal_open_token(text, timestamptz);"


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0050_api_tokens"),
        ("mfa", "0003_authenticator_type_uniq"),
    ]

    operations = [migrations.RunSQL(POLICY, UNDO), migrations.RunSQL(FUNCTION, DROP)]
