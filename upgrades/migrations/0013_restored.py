"""Record in which database a rollout was requested. The previous release writes it too, by the column's default."""

from django.db import migrations, models

import portal.database

# A part that PostgreSQL does not tell (no permission, or a standby) is left out. The timeline is the first part of the name
# of the log file that is written.
CREATE = """
CREATE FUNCTION portal_database_identity() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    cluster text;
    timeline text;
BEGIN
    BEGIN
        SELECT system_identifier::text INTO cluster FROM pg_control_system();
    EXCEPTION WHEN OTHERS THEN
        cluster := NULL;
    END;
    BEGIN
        timeline := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
    EXCEPTION WHEN OTHERS THEN
        timeline := NULL;
    END;
    RETURN concat_ws(
        '/',
        cluster,
        timeline,
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        to_regclass('deployment_upgrade_services')::oid
    );
END $$
"""


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0012_decisions")]

    operations = [
        migrations.RunSQL(CREATE, "DROP FUNCTION portal_database_identity()"),
        migrations.AddField(
            model_name="rollout",
            name="database",
            field=models.CharField(
                db_default=portal.database.DatabaseIdentity(),
                help_text="The database in which it was requested, or last found to have started nothing.",
                max_length=100,
            ),
        ),
    ]
