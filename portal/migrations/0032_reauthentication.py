"""Let an organization require re-authentication for `all`, forced upgrades and continuing a pause. Off for all."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0031_accepted_memberships"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="requires_reauthentication",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Upgrading all services, forced upgrades and continuing a pause need the password or a code of the last 5 minutes.",
                verbose_name="re-authentication before risky changes",
            ),
        ),
    ]
