"""What a rollout is to run, and the digests of what ran before and after."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0002_timeline'),
    ]

    operations = [
        migrations.AddField(
            model_name='rollout',
            name='from_digest',
            field=models.CharField(max_length=80, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='stall_seconds',
            field=models.IntegerField(help_text='Without progress for so long it is flagged as stalled.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='to_digest',
            field=models.CharField(max_length=80, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='wanted_image',
            field=models.CharField(help_text='`<repository>@sha256:..`: a revision with it is registered.', max_length=512, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='wanted_task_definition',
            field=models.CharField(help_text='Of a rollback.', max_length=512, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='wanted_version',
            field=models.CharField(max_length=255, null=True),
        ),
    ]
