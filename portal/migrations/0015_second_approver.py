"""Let an organization require a second person to continue a paused upgrade. Off for all."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0014_overdue'),
    ]

    operations = [
        migrations.AddField(
            model_name='organization',
            name='requires_second_approver',
            field=models.BooleanField(db_default=False, default=False, help_text='At a pause of an upgrade, only another person than the one who triggered it may continue.', verbose_name='second person to continue'),
        ),
    ]
