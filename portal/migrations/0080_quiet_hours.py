"""Stores a channel's quiet hours, and names new kinds of message.

The release before writes rows without quiet hours, and sends their messages immediately.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0073_saved_views"),
    ]

    operations = [
        migrations.AddField(
            model_name="notificationchannel",
            name="quiet_from",
            field=models.TimeField(null=True),
        ),
        migrations.AddField(
            model_name="notificationchannel",
            name="quiet_until",
            field=models.TimeField(null=True),
        ),
        migrations.AddField(
            model_name="notificationchannel",
            name="quiet_zone",
            field=models.CharField(db_default="UTC", default="UTC", max_length=64),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="kind",
            field=models.CharField(
                choices=[
                    ("upgrade.started", "Upgrade started"),
                    ("upgrade.ended", "Upgrade ended"),
                    ("upgrade.stalled", "Rollout stalled"),
                    ("upgrade.overdue", "Rollout overdue"),
                    ("upgrade.waiting", "Pause waits for a decision"),
                    ("upgrade.validation_missing", "Validation missing"),
                    ("deployment.failed", "Deployment failed"),
                    ("deployment.recovered", "Deployment recovered"),
                    ("notification.test", "Test"),
                ],
                max_length=40,
            ),
        ),
    ]
