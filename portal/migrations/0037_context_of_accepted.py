"""A person's context of row-level security has the organizations whose membership the person has accepted."""

from importlib import import_module

from django.db import migrations

FUNCTIONS: str = import_module("portal.migrations.0023_row_level_security").FUNCTIONS
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


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0034_upgrade_trigger_limit"),
        ("upgrades", "0020_row_level_security"),
        ("deployments", "0010_row_level_security"),
    ]

    operations = [migrations.RunSQL(AFTER + SEARCH_PATH, BEFORE + SEARCH_PATH)]
