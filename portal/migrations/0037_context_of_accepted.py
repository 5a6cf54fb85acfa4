"""A person's context of row-level security has the organizations whose membership the person has accepted.

The tables that came since 0023 get policies too.
"""

from importlib import import_module

from django.db import migrations

EARLIER = import_module("portal.migrations.0023_row_level_security")
FUNCTIONS: str = EARLIER.FUNCTIONS
BEFORE = FUNCTIONS[FUNCTIONS.index("CREATE FUNCTION portal_enter_person") : FUNCTIONS.index("-- Reads a session")].replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
)
MEMBER = "WHERE membership.user_id = person"
AFTER = BEFORE.replace(MEMBER, f"{MEMBER} AND membership.accepted_at IS NOT NULL")
# CREATE OR REPLACE drops the search path that 0023 has set.
SEARCH_PATH = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION portal_enter_person(bigint) SET search_path = %I, pg_temp', current_schema());
END $$;
"""
# Repeats of several organizations lie in one table by the name of their chain, so only the portal itself may read them.
REPEATS = """
ALTER TABLE portal_auditrepeat ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON portal_auditrepeat USING ((SELECT current_setting('portal.organizations', true) = '*'));
"""
ELEVATION = {"table": "portal_elevation", "column": "organization_id"}


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0034_upgrade_trigger_limit"),
        ("upgrades", "0020_row_level_security"),
        ("deployments", "0010_row_level_security"),
    ]

    operations = [
        migrations.RunSQL(AFTER + SEARCH_PATH, BEFORE + SEARCH_PATH),
        migrations.RunSQL(EARLIER.POLICY.format(**ELEVATION), EARLIER.UNDO.format(**ELEVATION)),
        migrations.RunSQL(REPEATS, EARLIER.UNDO.format(table="portal_auditrepeat")),
    ]
