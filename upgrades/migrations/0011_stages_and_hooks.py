"""Add what deployments of other strategies than ROLLING report, and whether a rollout is overdue.

The previous release leaves these columns empty.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0010_words'),
    ]

    operations = [
        migrations.AddField(
            model_name='rollout',
            name='allowed_seconds',
            field=models.IntegerField(help_text="Part of the deadline that the deployment's own configuration adds.", null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='bake_ends_at',
            field=models.DateTimeField(help_text='About when the bake ends. ECS does not report it.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='configuration',
            field=models.JSONField(help_text="The deployment's own configuration, as in portal.aws.ecs.DeploymentConfiguration.", null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='hook',
            field=models.JSONField(help_text='The hook that waits or runs: id, type, stage, status, expires_at, timeout_action, target.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='is_draining',
            field=models.BooleanField(db_default=False, default=False, help_text='Ended by early success, and old tasks still run or new ones still have to start.'),
        ),
        migrations.AddField(
            model_name='rollout',
            name='is_overdue',
            field=models.BooleanField(db_default=False, default=False, help_text='Past its deadline, and open in ECS as far as is known.'),
        ),
        migrations.AddField(
            model_name='rollout',
            name='lifecycle_stage',
            field=models.CharField(max_length=50, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='overdue_notified_at',
            field=models.DateTimeField(help_text='When the notification about it was sent.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='production_weight',
            field=models.FloatField(help_text='Percentage of the traffic on the new version.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='source_weight',
            field=models.FloatField(help_text='Percentage of the traffic on the earlier version.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='stage_began_at',
            field=models.DateTimeField(help_text='When the stage was first observed.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='strategy',
            field=models.CharField(max_length=20, null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='test_weight',
            field=models.FloatField(help_text='Percentage of the test traffic on the new version.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='traffic_shifted_at',
            field=models.DateTimeField(help_text='When all traffic was first observed on the new version.', null=True),
        ),
        migrations.AddField(
            model_name='rollout',
            name='waiting_since',
            field=models.DateTimeField(help_text='Since when the deployment waits for a decision.', null=True),
        ),
        migrations.AlterField(
            model_name='rollout',
            name='outcome',
            field=models.CharField(choices=[('completed', 'Completed'), ('completed_early', 'Completed early: old tasks may still run'), ('no_change', 'Nothing to change'), ('disabled', 'Disabled: desired count is 0'), ('waiting_for_decision', 'Waiting for a decision'), ('hook_running', 'A lifecycle hook is running'), ('baking', 'Serving and baking'), ('rolling_back', 'ECS is rolling back'), ('rolled_back', 'Rolled back by ECS'), ('rollback_failed', 'Rollback failed'), ('stopped_by_user', 'Stopped by a person'), ('superseded', 'Superseded by another deployment'), ('changed_since', 'Changed since the upgrade'), ('circuit_breaker', 'Stopped by the circuit breaker'), ('alarm', 'Stopped by an alarm'), ('stopped', 'Stopped by ECS'), ('access_denied', 'AWS denied access'), ('service_missing', 'Service not found'), ('not_supported', 'Deployed by another controller'), ('refused', 'ECS refused the update'), ('timed_out', 'Timed out'), ('not_attempted', 'Not attempted')], max_length=20, null=True),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='kind',
            field=models.CharField(choices=[('ecs', 'ECS'), ('upgrade.triggered', 'Triggered'), ('upgrade.stop_requested', 'Stop requested'), ('upgrade.ended', 'Ended'), ('upgrade.rolled_back', 'Rollback started'), ('upgrade.validated', 'Validation'), ('rollout.revision_registered', 'Revision registered'), ('rollout.started', 'Rollout started'), ('rollout.stalled', 'Rollout stalled'), ('rollout.resumed', 'Rollout resumed'), ('rollout.waiting', 'Waiting for a decision'), ('rollout.decided', 'Decided'), ('rollout.baking', 'Baking'), ('rollout.overdue', 'Rollout overdue'), ('rollout.rolling_back', 'Rolling back'), ('rollout.ended', 'Rollout ended'), ('check.recorded', 'Check recorded')], db_default='ecs', default='ecs', max_length=30),
        ),
    ]
