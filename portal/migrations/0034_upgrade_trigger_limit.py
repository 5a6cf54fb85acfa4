"""Limit how many upgrades an organization may trigger within an hour: 60, unless staff set another number."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0033_requires_mfa"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="upgrade_trigger_limit",
            field=models.PositiveSmallIntegerField(
                db_default=60,
                default=60,
                help_text="The most upgrades that may be triggered within an hour. Stop and rollbacks are never limited.",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(1000),
                ],
                verbose_name="upgrades an hour",
            ),
        ),
    ]
