from django.db import migrations, models


class Migration(migrations.Migration):
    """Rename two fields. Their columns keep their names, so the previous release can run beside this one."""

    dependencies = [("deployments", "0003_words")]

    operations = [
        migrations.AlterField("deployment", "wish", models.IntegerField(db_column="wish", default=1)),
        migrations.RenameField("deployment", "wish", "requested_generation"),
        migrations.AlterField("deployment", "carried_out", models.IntegerField(db_column="carried_out", default=0)),
        migrations.RenameField("deployment", "carried_out", "observed_generation"),
    ]
