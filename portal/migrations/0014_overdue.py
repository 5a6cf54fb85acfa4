"""Add the notification that a rollout is overdue. Channels that get the one about a stall get it too.

Before, the upgrade ended at its deadline, and the notification of its end reported that.
"""

from django.db import migrations, models

STALLED, OVERDUE = 'upgrade.stalled', 'upgrade.overdue'


def subscribe(apps, schema_editor):
    for channel in apps.get_model('portal', 'NotificationChannel').objects.all():
        if STALLED in channel.events and OVERDUE not in channel.events:
            channel.events = [*channel.events, OVERDUE]
            channel.save(update_fields=['events'])


def unsubscribe(apps, schema_editor):
    for channel in apps.get_model('portal', 'NotificationChannel').objects.all():
        if OVERDUE in channel.events:
            channel.events = [kind for kind in channel.events if kind != OVERDUE]
            channel.save(update_fields=['events'])


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0013_words'),
    ]

    operations = [
        migrations.AlterField(
            model_name='notificationdelivery',
            name='kind',
            field=models.CharField(choices=[('upgrade.started', 'Upgrade started'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.stalled', 'Rollout stalled'), ('upgrade.overdue', 'Rollout overdue'), ('upgrade.validation_missing', 'Validation missing'), ('notification.test', 'Test')], max_length=40),
        ),
        migrations.RunPython(subscribe, unsubscribe),
    ]
