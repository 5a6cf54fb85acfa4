"""A rollout that had stalled may move again: one kind of event more. The database does not notice."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0004_checks'),
    ]

    operations = [
        migrations.AlterField(
            model_name='upgradeevent',
            name='kind',
            field=models.CharField(choices=[('ecs', 'ECS'), ('upgrade.triggered', 'Triggered'), ('upgrade.stop_requested', 'Stop asked for'), ('upgrade.ended', 'Ended'), ('upgrade.rolled_back', 'Rollback started'), ('upgrade.validated', 'Validation'), ('rollout.revision_registered', 'Revision registered'), ('rollout.started', 'Rollout started'), ('rollout.stalled', 'Rollout stalled'), ('rollout.resumed', 'Rollout moves again'), ('rollout.rolling_back', 'Rolling back'), ('rollout.ended', 'Rollout ended'), ('check.recorded', 'Check recorded')], db_default='ecs', default='ecs', max_length=30),
        ),
    ]
