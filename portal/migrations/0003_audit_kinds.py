"""More kinds of audit rows: organizations, memberships and people, as staff change them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0002_audit_append_only"),
    ]

    operations = [
        migrations.AlterField(
            model_name="auditevent",
            name="kind",
            field=models.CharField(
                choices=[
                    ("upgrade.triggered", "Upgrade triggered"),
                    ("upgrade.stop_requested", "Stop of an upgrade requested"),
                    ("upgrade.ended", "Upgrade ended"),
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
                    ("session.signed_in", "Signed in"),
                    ("session.signed_out", "Signed out"),
                ],
                max_length=60,
            ),
        ),
    ]
