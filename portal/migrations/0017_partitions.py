"""Take the regions and role ARNs of every AWS partition that botocore knows."""

import portal.models.people
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0016_audit_decided'),
    ]

    operations = [
        migrations.AlterField(
            model_name='organization',
            name='deployment_execution_role_arn',
            field=models.CharField(blank=True, help_text="Pulls images, reads secrets, writes logs. Empty: the platform's agent service's role.", max_length=600, validators=[portal.models.people.role_arn], verbose_name='execution role of agents'),
        ),
        migrations.AlterField(
            model_name='organization',
            name='deployment_region',
            field=models.CharField(default='eu-central-1', max_length=50, validators=[portal.models.people.region_name], verbose_name='AWS region'),
        ),
        migrations.AlterField(
            model_name='organization',
            name='deployment_role_arn',
            field=models.CharField(blank=True, help_text="Empty: the portal's own credentials.", max_length=600, validators=[portal.models.people.role_arn], verbose_name='role to assume'),
        ),
        migrations.AlterField(
            model_name='organization',
            name='deployment_task_role_arn',
            field=models.CharField(blank=True, help_text="What agents may do in AWS. Empty: the platform's agent service's role.", max_length=600, validators=[portal.models.people.role_arn], verbose_name='task role of agents'),
        ),
    ]
