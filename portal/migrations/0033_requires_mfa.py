"""Let an organization require two-factor authentication of its members. Off for all."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0032_reauthentication"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="requires_mfa",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Members without an authenticator app or passkey have no access here until they set one up.",
                verbose_name="two-factor authentication",
            ),
        ),
    ]
