"""Functions by which the engine finds its work in every organization, without the context of all organizations.

They return ids only: which rows are due, and the organization of one. The engine then claims a row, and takes its step,
inside that organization (docs/decisions/0008-row-level-security.md). The caller gives the time, so that whoever turns the
clock of the database turns it here too.
"""

from django.db import migrations

# They run with the owner's rights, so no table of a caller may stand in for the portal's. The policies apply to the owner too
# where a site has a single role, so each reads with the context of all organizations and puts the caller's back. A failure
# undoes the setting. (Only superusers may make it a clause of the function.)
MADE = """LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE before text := coalesce(current_setting('portal.organizations', true), '{{}}');"""
ENTER = "PERFORM set_config('portal.organizations', '*', false);"
LEAVE = "PERFORM set_config('portal.organizations', before, false);"
FREE = "(work.lease_until IS NULL OR work.lease_until < moment) AND work.next_check_at <= moment"
DUE = f"""
CREATE FUNCTION {{name}}(moment timestamptz, overdue interval, most integer)
RETURNS TABLE (id bigint, is_overdue boolean) {MADE}
BEGIN
    {ENTER}
    RETURN QUERY SELECT work.id, work.next_check_at < moment - overdue FROM {{table}} AS work
    WHERE {{unfinished}} AND {FREE} ORDER BY work.next_check_at, work.id LIMIT most;
    {LEAVE}
END $$;
"""
DRAINING = f"""
CREATE FUNCTION upgrades_draining_rollouts(moment timestamptz, pause interval, longest interval, most integer)
RETURNS TABLE (id bigint) {MADE}
BEGIN
    {ENTER}
    RETURN QUERY SELECT work.id FROM deployment_upgrade_services AS work
    JOIN portal_organization AS organization ON organization.id = work.organization_id
    WHERE work.is_draining AND work.completed_at > moment - longest AND work.last_checked_at < moment - pause
        AND organization.is_active
    ORDER BY work.last_checked_at, work.id LIMIT most;
    {LEAVE}
END $$;
"""
ORGANIZATION = f"""
CREATE FUNCTION {{name}}(wanted bigint) RETURNS uuid {MADE}
    found uuid;
BEGIN
    {ENTER}
    SELECT work.organization_id INTO found FROM {{table}} AS work WHERE work.id = wanted;
    {LEAVE}
    RETURN found;
END $$;
"""
ROLLOUTS, RUNS = "deployment_upgrade_services", "deployment_upgrade_validations"
FUNCTIONS = {
    "upgrades_due_rollouts(timestamptz, interval, integer)": DUE.format(
        name="upgrades_due_rollouts", table=ROLLOUTS, unfinished="NOT (work.phase = 'done')"
    ),
    "upgrades_due_validations(timestamptz, interval, integer)": DUE.format(
        name="upgrades_due_validations", table=RUNS, unfinished="NOT work.is_done"
    ),
    "upgrades_draining_rollouts(timestamptz, interval, interval, integer)": DRAINING.format(),
    "upgrades_rollout_organization(bigint)": ORGANIZATION.format(name="upgrades_rollout_organization", table=ROLLOUTS),
    "upgrades_validation_organization(bigint)": ORGANIZATION.format(name="upgrades_validation_organization", table=RUNS),
}
SEARCH_PATH = """
DO $$ BEGIN EXECUTE format('ALTER FUNCTION {function} SET search_path = %I, pg_temp', current_schema()); END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0021_request_id"), ("portal", "0042_audit_kinds")]

    operations = [
        migrations.RunSQL(body + SEARCH_PATH.format(function=function), f"DROP FUNCTION {function}")
        for function, body in FUNCTIONS.items()
    ]
