"""Add the columns and tables of the audit chain. Migration 0019 fills them: adding columns must not wait for it."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("portal", "0017_partitions")]

    operations = [
        migrations.CreateModel(
            name="AuditChain",
            fields=[
                ("chain", models.CharField(max_length=36, primary_key=True, serialize=False)),
                ("position", models.BigIntegerField()),
                ("hash", models.CharField(max_length=64)),
            ],
        ),
        migrations.CreateModel(
            name="AuditCheckpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.CharField(max_length=36)),
                ("position", models.BigIntegerField(help_text="Of the last pruned row.")),
                ("hash", models.CharField(help_text="Of the last pruned row.", max_length=64)),
                ("rows", models.BigIntegerField(help_text="How many rows were pruned.")),
                ("export_sha256", models.CharField(help_text="Of the file with the pruned rows.", max_length=64)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name="AuditVerification",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("chains", models.BigIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("findings", models.JSONField(default=list, help_text="The first broken link of each chain.")),
            ],
        ),
        migrations.AddConstraint(
            model_name="auditcheckpoint",
            constraint=models.UniqueConstraint(fields=("chain", "position"), name="audit_checkpoint_once"),
        ),
        migrations.AddField(
            model_name="auditevent",
            name="client_ip",
            field=models.GenericIPAddressField(help_text="Of the request. Empty: the portal itself.", null=True),
        ),
        migrations.AddField(
            model_name="auditevent",
            name="position",
            field=models.BigIntegerField(db_default=0, editable=False),
        ),
        migrations.AddField(
            model_name="auditevent",
            name="previous_hash",
            field=models.CharField(db_default="", editable=False, max_length=64),
        ),
        migrations.AddField(
            model_name="auditevent",
            name="hash",
            field=models.CharField(db_default="", editable=False, max_length=64),
        ),
    ]
