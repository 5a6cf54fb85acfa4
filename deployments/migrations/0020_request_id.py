"""Keep the id of the request with the deployment. The previous release neither writes nor reads it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deployments', '0010_row_level_security'),
    ]

    operations = [
        migrations.AddField(
            model_name='deployment',
            name='request_id',
            field=models.CharField(db_default='-', default='-', help_text='Of the request that last changed it.', max_length=64),
        ),
    ]
