"""Reword help texts and the labels of two events. Nothing changes in the database."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deployments', '0002_counts'),
    ]

    operations = [
        migrations.AlterField(
            model_name='deployment',
            name='applied_at',
            field=models.DateTimeField(help_text='Time of the newest write to ECS.', null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='applied_generation',
            field=models.IntegerField(default=0, help_text='The newest generation applied to ECS.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='check_error',
            field=models.TextField(help_text='Why the last read or write failed.', null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='create_called_at',
            field=models.DateTimeField(help_text='When CreateService was last called.', null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='doubted_at',
            field=models.DateTimeField(help_text='When an unconfirmed outside change was first seen.', null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='generation',
            field=models.IntegerField(default=1, help_text='Increases when a new task definition is needed.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='has_read_slot',
            field=models.BooleanField(default=False, help_text='Its next read has a slot in the read budget.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='is_version_pinned',
            field=models.BooleanField(default=False, help_text='The version was chosen for this deployment, not taken from the agent.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='last_checked_at',
            field=models.DateTimeField(help_text='When ECS was last read successfully.', null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='node_id',
            field=models.CharField(help_text='The task it runs on.', max_length=255, null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='primary_id',
            field=models.CharField(help_text='Newest PRIMARY (ecs-svc/..).', max_length=100, null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='service_arn',
            field=models.CharField(help_text='Null if never seen.', max_length=512, null=True),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='status_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When the status last changed.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='task_generation',
            field=models.IntegerField(default=0, help_text='The generation of task_definition.'),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='watched_until',
            field=models.DateTimeField(help_text='Until when it counts as being viewed.', null=True),
        ),
        migrations.AlterField(
            model_name='deploymentevent',
            name='actor',
            field=models.CharField(help_text='E-mail address at the time, `system` or `outside the portal`.', max_length=254),
        ),
        migrations.AlterField(
            model_name='deploymentevent',
            name='detail',
            field=models.TextField(blank=True, help_text='What changed, for example: from 2 to 3.'),
        ),
        migrations.AlterField(
            model_name='deploymentevent',
            name='event_type',
            field=models.CharField(choices=[('create', 'Created'), ('scale', 'Scaled'), ('restart', 'Restarted'), ('stop', 'Stop requested'), ('kill', 'Killed'), ('deploy.deploying', 'No running tasks'), ('deploy.running', 'Tasks running'), ('deploy.ready', 'Ready'), ('deploy.stopped', 'Stopped'), ('deploy.failed', 'Failed')], max_length=20),
        ),
        migrations.AlterField(
            model_name='deploymentevent',
            name='status',
            field=models.CharField(choices=[('deploying', 'Deploying'), ('running', 'Running'), ('ready', 'Ready'), ('stopped', 'Stopped'), ('failed', 'Failed'), ('killed', 'Killed')], help_text="The deployment's status at the time.", max_length=10),
        ),
        migrations.AlterField(
            model_name='readslot',
            name='account',
            field=models.CharField(blank=True, help_text="Empty for the portal's own account.", max_length=12),
        ),
    ]
