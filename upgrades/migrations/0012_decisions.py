"""Add people's decisions at pauses. The previous release neither writes nor reads them."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0015_second_approver'),
        ('upgrades', '0011_stages_and_hooks'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Decision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hook_id', models.CharField(help_text="ECS's id of the pause that the person saw.", max_length=512)),
                ('stage', models.CharField(max_length=50, null=True)),
                ('action', models.CharField(choices=[('continue', 'Continue'), ('rollback', 'Roll back')], max_length=10)),
                ('reason', models.TextField(blank=True)),
                ('decided_by_email', models.CharField(max_length=254)),
                ('decided_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('sent_at', models.DateTimeField(help_text='When ContinueServiceDeployment was called.', null=True)),
                ('ended_at', models.DateTimeField(help_text='When ECS accepted it, or the pause ended without it.', null=True)),
                ('error', models.TextField(null=True)),
                ('decided_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='portal.organization')),
                ('rollout', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='decisions', to='upgrades.rollout')),
            ],
            options={
                'db_table': 'deployment_upgrade_decisions',
                'ordering': ['-decided_at', '-id'],
                'constraints': [models.UniqueConstraint(fields=('rollout', 'hook_id'), name='decision_once_per_hook')],
            },
        ),
    ]
