"""Stores how a person reads times, and an organization's links to other systems. The release before writes rows without."""

from django.db import migrations, models

import portal.outside_links


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0051_open_token"),
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
        *(
            migrations.AddField(
                model_name="organization",
                name=name,
                field=models.CharField(
                    blank=True,
                    db_default="",
                    default="",
                    editable=False,
                    max_length=600,
                    validators=[portal.outside_links.check_template],
                ),
            )
            for name in ("ecs_link", "logs_link", "runbook_link", "ticket_link")
        ),
    ]
