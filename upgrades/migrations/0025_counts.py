"""Upgrades are counted by target, status and validation state as they change, so that the history has no rows to count.

The counters of the rows that exist are made while no upgrade can change. Reads go on.
"""

import django.db.models.deletion
from django.db import migrations, models

# The counters of one change are taken in one order, so that two opposite changes never wait for each other.
TRIGGERS = """
CREATE FUNCTION upgrades_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deployment_upgrade_counts (organization_id, target, status, validation, count)
    SELECT changed.organization_id, changed.target, changed.status, changed.validation, changed.difference
    FROM (
        SELECT NEW.organization_id, NEW.target, NEW.status, NEW.validation, 1 AS difference
        UNION ALL
        SELECT OLD.organization_id, OLD.target, OLD.status, OLD.validation, -1 WHERE TG_OP = 'UPDATE'
    ) AS changed
    ORDER BY changed.status, changed.validation
    ON CONFLICT (organization_id, target, status, validation)
    DO UPDATE SET count = deployment_upgrade_counts.count + excluded.count;
    RETURN NULL;
END
$$;
CREATE TRIGGER upgrades_count_insert AFTER INSERT ON deployment_upgrades
    FOR EACH ROW EXECUTE FUNCTION upgrades_count();
CREATE TRIGGER upgrades_count_update AFTER UPDATE OF status, validation ON deployment_upgrades
    FOR EACH ROW WHEN ((OLD.status, OLD.validation) IS DISTINCT FROM (NEW.status, NEW.validation))
    EXECUTE FUNCTION upgrades_count();
CREATE FUNCTION upgrades_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deployment_upgrade_counts SET count = count - 1
    WHERE organization_id = OLD.organization_id AND target = OLD.target
        AND status = OLD.status AND validation = OLD.validation;
    RETURN NULL;
END
$$;
CREATE TRIGGER upgrades_count_delete AFTER DELETE ON deployment_upgrades
    FOR EACH ROW EXECUTE FUNCTION upgrades_uncount();
"""
WITHOUT_TRIGGERS = """
DROP TRIGGER upgrades_count_insert ON deployment_upgrades;
DROP TRIGGER upgrades_count_update ON deployment_upgrades;
DROP TRIGGER upgrades_count_delete ON deployment_upgrades;
DROP FUNCTION upgrades_count();
DROP FUNCTION upgrades_uncount();
"""
COUNT = """
INSERT INTO deployment_upgrade_counts (organization_id, target, status, validation, count)
SELECT organization_id, target, status, validation, count(*) FROM deployment_upgrades GROUP BY 1, 2, 3, 4;
"""
POLICY = """
ALTER TABLE deployment_upgrade_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON deployment_upgrade_counts USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR organization_id = ANY ((SELECT portal_organizations())::uuid[])
);
"""
WITHOUT_POLICY = """
DROP POLICY organizations ON deployment_upgrade_counts;
ALTER TABLE deployment_upgrade_counts DISABLE ROW LEVEL SECURITY;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0023_row_level_security"),
        ("upgrades", "0024_bounded_past"),
    ]

    operations = [
        migrations.CreateModel(
            name="UpgradeCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("target", models.CharField(max_length=20)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("PENDING", "Pending"),
                            ("IN_PROGRESS", "In progress"),
                            ("SUCCESS", "Success"),
                            ("FAILED", "Failed"),
                            ("PARTIAL", "Partial"),
                            ("SKIPPED", "Skipped"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "validation",
                    models.CharField(
                        choices=[
                            ("none", "Nothing to validate"),
                            ("needed", "Needs validation"),
                            ("passed", "Validated"),
                            ("failed", "Validation failed"),
                        ],
                        max_length=10,
                    ),
                ),
                ("count", models.IntegerField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="portal.organization"
                    ),
                ),
            ],
            options={"db_table": "deployment_upgrade_counts"},
        ),
        migrations.AddConstraint(
            model_name="upgradecount",
            constraint=models.UniqueConstraint(
                fields=("organization", "target", "status", "validation"), name="upgrade_count_once"
            ),
        ),
        migrations.RunSQL("LOCK TABLE deployment_upgrades IN SHARE ROW EXCLUSIVE MODE", migrations.RunSQL.noop),
        migrations.RunSQL(TRIGGERS, WITHOUT_TRIGGERS),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
        migrations.RunSQL(POLICY, WITHOUT_POLICY),
    ]
