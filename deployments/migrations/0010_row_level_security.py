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
    "deployments_agent",
    "deployments_deployment",
    "deployments_deploymentcount",
    "deployments_deploymentevent",
]


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0023_row_level_security"),
        ("deployments", "0005_requested_by"),
    ]

    operations = [migrations.RunSQL(POLICY.format(table=table), UNDO.format(table=table)) for table in TABLES]
