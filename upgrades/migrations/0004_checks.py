"""Pre-flight, validation and rollback."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0007_platform_addresses'),
        ('upgrades', '0003_versions'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='UpgradeCheck',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('stage', models.CharField(choices=[('preflight', 'Before'), ('validation', 'After')], max_length=10)),
                ('name', models.CharField(help_text='`check` in the API.', max_length=40)),
                ('position', models.SmallIntegerField(help_text='In the order in which people read them.')),
                ('status', models.CharField(choices=[('pass', 'Pass'), ('fail', 'Fail'), ('unknown', 'Not known')], default='unknown', max_length=10)),
                ('detail', models.TextField(blank=True, help_text='What was found, in a sentence.')),
                ('evidence', models.JSONField(default=dict, help_text='What it was found from: numbers and names, never a body.')),
                ('checked_by_email', models.CharField(blank=True, max_length=254)),
                ('note', models.TextField(blank=True, help_text='Of the person who signed it.')),
                ('checked_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'deployment_upgrade_checks',
                'ordering': ['upgrade_id', 'stage', 'position'],
            },
        ),
        migrations.CreateModel(
            name='ValidationRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('next_check_at', models.DateTimeField(null=True)),
                ('lease_until', models.DateTimeField(null=True)),
                ('lease_epoch', models.BigIntegerField(default=0, help_text='Fencing: a write with an older epoch changes nothing.')),
                ('ends_at', models.DateTimeField(help_text='Nothing is probed any more after that.')),
                ('steady_since', models.DateTimeField(help_text='Since when every look found the services steady.', null=True)),
                ('reminded_at', models.DateTimeField(help_text='When people were told that its validation is missing.', null=True)),
                ('is_done', models.BooleanField(default=False)),
            ],
            options={
                'db_table': 'deployment_upgrade_validations',
            },
        ),
        migrations.AddField(
            model_name='upgrade',
            name='override_reason',
            field=models.TextField(db_default='', default='', help_text='Why it was started although a pre-flight check failed; empty: none did.'),
        ),
        migrations.AddField(
            model_name='upgrade',
            name='rolls_back',
            field=models.ForeignKey(help_text='Of a rollback: of what.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='rollbacks', to='upgrades.upgrade'),
        ),
        migrations.AddField(
            model_name='upgrade',
            name='validation',
            field=models.CharField(choices=[('none', 'Nothing to validate'), ('needed', 'Needs validation'), ('passed', 'Validated'), ('failed', 'Validation failed')], db_default='none', default='none', max_length=10),
        ),
        migrations.AddIndex(
            model_name='upgrade',
            index=models.Index(fields=['organization', 'validation', '-created_at', '-id'], name='upgrade_by_validation'),
        ),
        migrations.AddField(
            model_name='upgradecheck',
            name='checked_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='upgradecheck',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='portal.organization'),
        ),
        migrations.AddField(
            model_name='upgradecheck',
            name='upgrade',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='checks', to='upgrades.upgrade'),
        ),
        migrations.AddField(
            model_name='validationrun',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='portal.organization'),
        ),
        migrations.AddField(
            model_name='validationrun',
            name='upgrade',
            field=models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='validation_run', to='upgrades.upgrade'),
        ),
        migrations.AddConstraint(
            model_name='upgradecheck',
            constraint=models.UniqueConstraint(fields=('upgrade', 'stage', 'name'), name='check_once_per_stage'),
        ),
        migrations.AddIndex(
            model_name='validationrun',
            index=models.Index(condition=models.Q(('is_done', False)), fields=['next_check_at'], name='validation_due'),
        ),
    ]
