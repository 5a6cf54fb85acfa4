"""Keep each deploy of an agent as a revision. The previous release leaves a deployment's revision empty.

A page shows both new columns of a deployment: the trigger of migration 0022 counts their changes, as it is.
"""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# As portal's migration 0023 explains.
POLICY = """
ALTER TABLE deployments_revision ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON deployments_revision USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR organization_id = ANY ((SELECT portal_organizations())::uuid[])
);
"""
UNDO_POLICY = """
DROP POLICY organizations ON deployments_revision;
ALTER TABLE deployments_revision DISABLE ROW LEVEL SECURITY;
"""
# The registry tells the digest when the deploy is carried out, after the row was made.
KEEP = """
CREATE FUNCTION deployments_keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.digest IS NULL AND to_jsonb(NEW) - 'digest' = to_jsonb(OLD) - 'digest' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'revisions are never changed or deleted';
END
$$;
CREATE TRIGGER deployments_keep_revision BEFORE UPDATE OR DELETE ON deployments_revision
    FOR EACH ROW EXECUTE FUNCTION deployments_keep_revision();
"""
UNDO_KEEP = """
DROP TRIGGER deployments_keep_revision ON deployments_revision;
DROP FUNCTION deployments_keep_revision();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0023_by_replicas"),
        ("portal", "0023_row_level_security"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Revision",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("number", models.IntegerField()),
                ("image", models.CharField(max_length=512)),
                (
                    "digest",
                    models.CharField(
                        help_text="`sha256:..`; null if no registry has told it.", max_length=71, null=True
                    ),
                ),
                ("version", models.CharField(max_length=128, null=True)),
                ("cpu", models.IntegerField()),
                ("memory", models.IntegerField()),
                ("environment", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "agent",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="revisions",
                        to="deployments.agent",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="portal.organization"
                    ),
                ),
                (
                    "restored_from",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="deployments.revision",
                    ),
                ),
            ],
            options={
                "ordering": ["-number"],
                "constraints": [models.UniqueConstraint(fields=("agent", "number"), name="revision_number_once")],
            },
        ),
        migrations.RunSQL(POLICY, UNDO_POLICY),
        migrations.RunSQL(KEEP, UNDO_KEEP),
        migrations.AddField(
            "deployment",
            "target_revision",
            models.ForeignKey(
                help_text="These settings. Null: made by the release before revisions, or deployed outside the portal.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="deployments",
                to="deployments.revision",
            ),
        ),
        migrations.AddField(
            "deployment",
            "live_revision",
            models.ForeignKey(
                help_text="The newest one that ECS has rolled out completely here.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="deployments.revision",
            ),
        ),
    ]
