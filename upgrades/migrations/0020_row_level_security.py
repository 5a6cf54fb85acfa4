"""Row-level security on the tables of this app, as portal's migration 0023 explains it."""

from django.db import migrations

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON {table} USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR organization_id = ANY ((SELECT portal_organizations())::uuid[])
);
"""
UNDO = "DROP POLICY organizations ON {table}; ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;"
TABLES = [
    "deployment_upgrades",
    "deployment_upgrade_services",
    "deployment_upgrade_decisions",
    "deployment_upgrade_events",
    "deployment_upgrade_checks",
    "deployment_upgrade_validations",
]


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0023_row_level_security"),
        ("upgrades", "0013_restored"),
    ]

    operations = [migrations.RunSQL(POLICY.format(table=table), UNDO.format(table=table)) for table in TABLES]
