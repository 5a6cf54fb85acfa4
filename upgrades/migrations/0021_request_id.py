"""Keep the id of the request with the upgrade. The previous release neither writes nor reads it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0020_row_level_security'),
    ]

    operations = [
        migrations.AddField(
            model_name='upgrade',
            name='request_id',
            field=models.CharField(db_default='-', default='-', help_text='Of the request that triggered it.', max_length=64),
        ),
    ]
