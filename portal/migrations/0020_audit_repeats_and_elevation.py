"""Add repeats of audit rows within a minute, access of staff to an organization, and the kinds of both."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0019_audit_triggers"),
    ]

    operations = [
        migrations.AlterField(
            model_name="auditevent",
            name="actor_email",
            field=models.CharField(
                help_text="As it was then; `system` for the portal itself, `anonymous` for no one signed in.",
                max_length=254,
            ),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="kind",
            field=models.CharField(
                choices=[
                    ("upgrade.triggered", "Upgrade triggered"),
                    ("upgrade.stop_requested", "Upgrade stop requested"),
                    ("upgrade.decided", "Decided at a pause"),
                    ("upgrade.ended", "Upgrade ended"),
                    ("upgrade.rollback_triggered", "Rollback triggered"),
                    ("upgrade.check_signed", "Validation check signed"),
                    ("upgrade.validated", "Upgrade validated"),
                    ("upgrade.probed_again", "Checks rerun"),
                    ("channel.created", "Notification channel created"),
                    ("channel.changed", "Notification channel changed"),
                    ("channel.removed", "Notification channel removed"),
                    ("channel.tested", "Notification channel tested"),
                    ("agent.created", "Agent created"),
                    ("agent.changed", "Agent changed"),
                    ("deployment.created", "Deployment created"),
                    ("deployment.scaled", "Deployment scaled"),
                    ("deployment.stop_requested", "Deployment stop requested"),
                    ("deployment.restarted", "Deployment restarted"),
                    ("deployment.killed", "Deployment killed"),
                    ("deployment.changed_outside", "Deployment changed outside the portal"),
                    ("organization.created", "Organization created"),
                    ("organization.changed", "Organization changed"),
                    ("organization.connection_tested", "AWS connection tested"),
                    ("membership.added", "Member added"),
                    ("membership.changed", "Membership changed"),
                    ("membership.removed", "Member removed"),
                    ("person.created", "Person created"),
                    ("person.changed", "Person changed"),
                    ("person.password_set", "Password set by staff"),
                    ("person.two_factor_removed", "Two-factor authentication removed by staff"),
                    ("person.password_changed", "Password changed"),
                    ("person.password_reset", "Password reset with the link of an e-mail"),
                    ("person.second_factor_added", "Second factor added"),
                    ("person.second_factor_removed", "Second factor removed"),
                    ("person.recovery_codes_generated", "Recovery codes generated"),
                    ("person.recovery_codes_viewed", "Recovery codes viewed"),
                    ("person.recovery_codes_downloaded", "Recovery codes downloaded"),
                    ("session.signed_in", "Signed in"),
                    ("session.signed_out", "Signed out"),
                    ("session.sign_in_failed", "Sign-in failed"),
                    ("upgrade.refused", "Upgrade action refused"),
                    ("deployment.refused", "Deployment action refused"),
                    ("agent.refused", "Change of an agent refused"),
                    ("membership.refused", "Change of a member refused"),
                    ("channel.refused", "Change of a notification channel refused"),
                    ("organization.refused", "Change of a setting refused"),
                    ("data.exported", "Data exported"),
                    ("staff.entered", "Staff entered the organization"),
                    ("staff.left", "Staff left the organization"),
                    ("staff.access_expired", "Staff access expired"),
                    ("staff.read", "Read by staff"),
                    ("audit.pruned", "Old audit rows exported and deleted"),
                ],
                max_length=60,
            ),
        ),
        migrations.CreateModel(
            name="AuditRepeat",
            fields=[
                (
                    "fingerprint",
                    models.CharField(
                        help_text="SHA-256 of who, what and which target.",
                        max_length=64,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("chain", models.CharField(max_length=36)),
                ("kind", models.CharField(max_length=60)),
                ("actor_email", models.CharField(max_length=254)),
                ("subject", models.CharField(max_length=254)),
                ("data", models.JSONField(default=dict)),
                ("request_id", models.CharField(max_length=64)),
                ("client_ip", models.GenericIPAddressField(null=True)),
                ("is_counted", models.BooleanField(help_text="False: the repeats leave no row.")),
                ("count", models.PositiveIntegerField(default=0, help_text="Without the first, which has its row.")),
                ("first_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "actor",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["first_at"], name="audit_repeat_oldest")],
            },
        ),
        migrations.CreateModel(
            name="Elevation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reason", models.CharField(max_length=500)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("expires_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="portal.organization"
                    ),
                ),
                (
                    "staff",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at__isnull", True)), fields=("staff",), name="elevation_one_open"
                    )
                ],
            },
        ),
    ]
