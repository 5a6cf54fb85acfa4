"""Reword help texts and choice labels. The database does not change."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0009_not_supported'),
    ]

    operations = [
        migrations.AlterField(
            model_name='rollout',
            name='attempts',
            field=models.SmallIntegerField(default=0, help_text='Number of UpdateService calls.'),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='baseline',
            field=models.JSONField(default=dict, help_text="Deployment ids and ARN before the UpdateService call, and AWS's time then."),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='check_error',
            field=models.TextField(help_text='Why the last read of ECS failed.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='doubted_at',
            field=models.DateTimeField(help_text='When a verdict that needs a second observation was first observed.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='last_checked_at',
            field=models.DateTimeField(help_text='Time of the last successful read of ECS.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='outcome',
            field=models.CharField(choices=[('completed', 'Completed'), ('no_change', 'Nothing to change'), ('disabled', 'Disabled: desired count is 0'), ('rolling_back', 'ECS is rolling back'), ('rolled_back', 'Rolled back by ECS'), ('rollback_failed', 'Rollback failed'), ('stopped_by_user', 'Stopped by a person'), ('superseded', 'Superseded by another deployment'), ('changed_since', 'Changed since the upgrade'), ('circuit_breaker', 'Stopped by the circuit breaker'), ('alarm', 'Stopped by an alarm'), ('stopped', 'Stopped by ECS'), ('access_denied', 'AWS denied access'), ('service_missing', 'Service not found'), ('not_supported', 'Deployed by another controller'), ('refused', 'ECS refused the update'), ('timed_out', 'Timed out'), ('not_attempted', 'Not attempted')], max_length=20, null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='stall_seconds',
            field=models.IntegerField(help_text='Flagged as stalled after this long without progress.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='stop_error',
            field=models.TextField(help_text='Why the requested stop was not carried out, at the last check.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='stop_sent_at',
            field=models.DateTimeField(help_text='When StopServiceDeployment was called.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='wanted_image',
            field=models.CharField(help_text='`<repository>@sha256:..`. A revision with this image is registered.', max_length=512, null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='wanted_task_definition',
            field=models.CharField(help_text='Only for a rollback.', max_length=512, null=True),
        ),
        migrations.AlterField(
            model_name='upgrade',
            name='estimated_seconds',
            field=models.IntegerField(help_text='Estimated at the trigger from past rollouts. Null: there were none.', null=True),
        ),
        migrations.AlterField(
            model_name='upgrade',
            name='override_reason',
            field=models.TextField(db_default='', default='', help_text='Reason to start despite failed pre-flight checks. Empty: none failed.'),
        ),
        migrations.AlterField(
            model_name='upgrade',
            name='rolls_back',
            field=models.ForeignKey(help_text='Only for a rollback: the upgrade that it rolls back.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='rollbacks', to='upgrades.upgrade'),
        ),
        migrations.AlterField(
            model_name='upgradecheck',
            name='detail',
            field=models.TextField(blank=True, help_text='The finding, in one sentence.'),
        ),
        migrations.AlterField(
            model_name='upgradecheck',
            name='evidence',
            field=models.JSONField(default=dict, help_text='Numbers and names behind the finding, never a response body.'),
        ),
        migrations.AlterField(
            model_name='upgradecheck',
            name='note',
            field=models.TextField(blank=True, help_text='Note of the person who signed it.'),
        ),
        migrations.AlterField(
            model_name='upgradecheck',
            name='position',
            field=models.SmallIntegerField(help_text='Display order.'),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='actor_email',
            field=models.CharField(db_default='', default='', help_text='Empty for the portal itself and for ECS.', max_length=254),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='kind',
            field=models.CharField(choices=[('ecs', 'ECS'), ('upgrade.triggered', 'Triggered'), ('upgrade.stop_requested', 'Stop requested'), ('upgrade.ended', 'Ended'), ('upgrade.rolled_back', 'Rollback started'), ('upgrade.validated', 'Validation'), ('rollout.revision_registered', 'Revision registered'), ('rollout.started', 'Rollout started'), ('rollout.stalled', 'Rollout stalled'), ('rollout.resumed', 'Rollout resumed'), ('rollout.rolling_back', 'Rolling back'), ('rollout.ended', 'Rollout ended'), ('check.recorded', 'Check recorded')], db_default='ecs', default='ecs', max_length=30),
        ),
        migrations.AlterField(
            model_name='validationrun',
            name='ends_at',
            field=models.DateTimeField(help_text='Probing stops after this time.'),
        ),
        migrations.AlterField(
            model_name='validationrun',
            name='reminded_at',
            field=models.DateTimeField(help_text='When the notification about the missing validation was sent.', null=True),
        ),
        migrations.AlterField(
            model_name='validationrun',
            name='steady_since',
            field=models.DateTimeField(help_text='Since when every check found the services steady.', null=True),
        ),
    ]
