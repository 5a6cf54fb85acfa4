"""Stores how a person reads times. The release before writes rows without them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0043_open_request"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="time_zone",
            field=models.CharField(db_default="UTC", default="UTC", editable=False, max_length=64),
        ),
        migrations.AddField(
            model_name="user",
            name="has_absolute_times",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
    ]
