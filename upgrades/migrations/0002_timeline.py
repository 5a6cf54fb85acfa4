"""The timeline holds what the portal did beside ECS's events; ECS's rows stay as they are."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0001_initial'),
    ]

    operations = [
        migrations.RenameModel(old_name='RolloutEvent', new_name='UpgradeEvent'),
        migrations.AddField(
            model_name='upgradeevent',
            name='upgrade',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='events', to='upgrades.upgrade'),
        ),
        migrations.AddField(
            model_name='upgradeevent',
            name='kind',
            field=models.CharField(choices=[('ecs', 'ECS'), ('upgrade.triggered', 'Triggered'), ('upgrade.stop_requested', 'Stop asked for'), ('upgrade.ended', 'Ended'), ('upgrade.rolled_back', 'Rollback started'), ('upgrade.validated', 'Validation'), ('rollout.revision_registered', 'Revision registered'), ('rollout.started', 'Rollout started'), ('rollout.stalled', 'Rollout stalled'), ('rollout.rolling_back', 'Rolling back'), ('rollout.ended', 'Rollout ended'), ('check.recorded', 'Check recorded')], db_default='ecs', default='ecs', max_length=30),
        ),
        migrations.AddField(
            model_name='upgradeevent',
            name='actor_email',
            field=models.CharField(db_default='', default='', help_text='Empty: the portal, or ECS.', max_length=254),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='rollout',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='events', to='upgrades.rollout'),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='ecs_event_id',
            field=models.CharField(max_length=100, null=True),
        ),
        migrations.AlterField(
            model_name='upgradeevent',
            name='created_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        migrations.AddConstraint(
            model_name='upgradeevent',
            constraint=models.CheckConstraint(condition=models.Q(('upgrade__isnull', False), ('rollout__isnull', False), _connector='OR'), name='event_of_something'),
        ),
    ]
