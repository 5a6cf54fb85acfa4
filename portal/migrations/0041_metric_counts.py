"""Add the counters of /metrics. The previous release neither writes nor reads them."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0040_secret_places'),
    ]

    operations = [
        migrations.CreateModel(
            name='MetricCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100)),
                ('labels', models.TextField(help_text='The values of the labels, as a JSON array.')),
                ('value', models.FloatField(db_default=0)),
                ('counted_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When it last grew.')),
            ],
            options={
                'db_table': 'portal_metriccount',
                'constraints': [models.UniqueConstraint(fields=('name', 'labels'), name='metric_count_once')],
            },
        ),
    ]
